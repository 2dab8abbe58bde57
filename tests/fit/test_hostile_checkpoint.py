"""A checkpoint from elsewhere brings tensors and numbers: never options, names to import, paths or hub names."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

import lightning as L

from ddcm.errors import UserError
from ddcm.fit.cli import FitCLI, main
from ddcm.fit.data import LatentData, StreamedLatents
from ddcm.fit.module import CodebookModule
from ddcm.quantize.pretrained import load_codebook
from tests.conftest import EXAMPLES

pytestmark = pytest.mark.filterwarnings("ignore")

EVIL = ("evilmod:run", "evil-org/evil-repo", "evilmod.run")


def hostile_entries() -> dict[str, dict[str, Any]]:
    """Entries from which some version of Lightning takes arguments, classes or functions."""
    entries = {}
    for value in EVIL:
        for name in ("hyper_parameters", "hparams", "module_arguments", "datamodule_hyper_parameters"):
            for argument in ("backbone", "init_from", "root", "_class_path", "_instantiator"):
                entries[f"{name}/{argument}/{value}"] = {name: {argument: value}}
        quantizer = {"class_path": value, "init_args": {}}
        entries[f"quantizer/{value}"] = {"hyper_parameters": {"quantizer": quantizer}}
        entries[f"named/{value}"] = {"hyper_parameters": {"backbone": value}, "hparams_name": "kwargs"}
        entries[f"typed/{value}"] = {"hyper_parameters": {"backbone": value}, "hparams_type": value}
    entries["another learning rate"] = {"hyper_parameters": {"learning_rate": 3.0, "seed": 5, "diffusion_weight": 1.0}}
    entries["wrong type"] = {"hyper_parameters": ["backbone"]}
    return entries


@pytest.fixture(scope="module")
def all_hostile(trained, tmp_path_factory) -> Path:
    """The checkpoint with every such entry that can stand beside the others, and hostile names in the rest."""
    checkpoint = torch.load(trained, weights_only=True)
    for entries in hostile_entries().values():
        for name, value in entries.items():
            if isinstance(checkpoint.get(name), dict) and isinstance(value, dict):
                checkpoint[name] |= value
            else:
                checkpoint[name] = value
    checkpoint["ddcm"] |= {"backbone": "evilmod:run", "init_from": "evil-org/evil-repo"}
    path = tmp_path_factory.mktemp("hostile") / "last.ckpt"
    torch.save(checkpoint, path)
    return path


def codebook_after(command: list[str], run: Path, checkpoint: Path) -> torch.Tensor:
    main([*command, f"--trainer.default_root_dir={run}", "--trainer.max_steps=8", f"--ckpt_path={checkpoint}"])
    return load_codebook(run / "checkpoints" / "last.ckpt").quantizer.codebook


def parsed(arguments: list[str]) -> Any:
    """The configuration of a command up to where the first class is made."""
    made: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FitCLI, "instantiate_classes", lambda self: made.append(self.config[self.subcommand].clone()))
        patch.setattr(FitCLI, "_run_subcommand", lambda *_: None)
        main(arguments)
    made[0].ckpt_path = None
    return made[0]


@pytest.fixture(scope="module")
def without(command) -> Any:
    """The configuration of the command without a checkpoint."""
    return parsed(command)


@pytest.mark.parametrize("name", hostile_entries())
def test_lightning_takes_no_arguments_from_a_checkpoint(altered, attempts, command, without, name):
    path = altered(lambda checkpoint: checkpoint.update(hostile_entries()[name]))
    assert parsed([*command, f"--ckpt_path={path}"]) == without and attempts == []


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "load_from_checkpoint", "init_from", "codebook", "data"])
def test_readers_take_tensors_alone(trained, all_hostile, attempts, command, tmp_path, capsys, verb):
    if verb == "fit":
        wanted, got = (codebook_after(command, tmp_path / p.parent.name, p) for p in (trained, all_hostile))
        assert torch.equal(wanted, got)
        assert load_codebook(tmp_path / all_hostile.parent.name / "codebook").backbone_name == "tiny"
    elif verb in ("validate", "test"):
        printed = []
        for path in (trained, all_hostile):
            main([verb, *command[1:], f"--ckpt_path={path}"])
            printed.append([line for line in capsys.readouterr().out.splitlines() if "error" in line])
        assert printed[0] == printed[1] and printed[0]
    elif verb == "data":
        for cls in (LatentData, StreamedLatents):
            with pytest.raises(UserError, match="no options of the data"):
                cls.load_from_checkpoint(all_hostile)
    elif verb == "init_from":
        main([*command, f"--trainer.default_root_dir={tmp_path}", f"--model.init_from={all_hostile}"])
    else:
        load = CodebookModule.load_from_checkpoint if verb == "load_from_checkpoint" else load_codebook
        wanted, got = load(trained), load(all_hostile)
        assert torch.equal(wanted.quantizer.codebook, got.quantizer.codebook)
        assert got.backbone_name == ("pocket" if verb == "load_from_checkpoint" else "evilmod:run")
    assert attempts == []


def test_options_of_the_optimizer_are_those_of_the_run(trained, altered, command, tmp_path):
    def change(checkpoint):
        checkpoint["optimizer_states"][0]["param_groups"][0] |= {"maximize": True, "weight_decay": 9.0, "more": "x"}
        checkpoint["lr_schedulers"][0] |= {"base_lrs": [9.0], "step": 5, "lr_lambdas": [{"x": 1}], "optimizer": None}
        state = next(state for name, state in checkpoint["callbacks"].items() if name.startswith("EarlyStopping"))
        state["patience"] = 0

    wanted, got = (codebook_after(command, tmp_path / f"{i}", p) for i, p in enumerate((trained, altered(change))))
    assert torch.equal(wanted, got)


def test_a_module_from_a_checkpoint_goes_with_its_latents_alone(trained, altered):
    module = CodebookModule.load_from_checkpoint(trained, learning_rate=0.5)
    assert module.learning_rate == 0.5 and module.quantizer.codebook.requires_grad and module.quantizer.training
    with pytest.raises(UserError, match="latent"):
        other = altered(inside_digest)
        module = CodebookModule.load_from_checkpoint(other, backbone="tiny")
        L.Trainer(accelerator="cpu", logger=False).validate(module, LatentData(str(EXAMPLES), "tiny"), verbose=False)


def inside_digest(checkpoint: dict[str, Any]) -> None:
    checkpoint["ddcm"]["latent_digest"] = "0" * 16
