"""Checkpoints that are damaged, hostile or moved: refused in a line, or read for their tensors and numbers alone."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

from ddcm.errors import UserError
from ddcm.fit.checkpoint import CODEBOOK, RUN, check_entries
from ddcm.fit.cli import main
from ddcm.quantize.pretrained import load_codebook, read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")

ENTRIES = (
    "state_dict", "ddcm", "pytorch-lightning_version", "epoch", "global_step", "loops", "callbacks", "optimizer_states",
    "lr_schedulers",
)  # fmt: skip
MISSING = object()
WRONG = {
    "missing": MISSING, "none": None, "text": "text", "number": 0.5, "list": ["text"], "empty": [], "dict": {},
    "tensor": torch.zeros(3), "itself": "itself", "negative": -1,
}  # fmt: skip


def replace(checkpoint: dict[str, Any], name: str, value: Any) -> None:
    """Set an entry of a checkpoint, or remove it."""
    if value is MISSING:
        del checkpoint[name]
    elif isinstance(value, str) and value == "itself":
        checkpoint[name] = {"inner": checkpoint}
    else:
        checkpoint[name] = value


def assert_refused(capsys, path: Path, arguments: list[str]) -> str:
    """Exit code 2, and one line of error that names the file."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert stop.value.code == 2 and str(path) in line
    return line


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_of_another_kind_is_refused(altered, capsys, tmp_path, command, entry, wrong):
    path = altered(lambda checkpoint: replace(checkpoint, entry, WRONG[wrong]))
    of_its_type = isinstance(WRONG[wrong], (CODEBOOK | RUN)[entry])
    if wrong not in ("missing", "none", "itself") and not of_its_type:  # the command line does so first of all
        with pytest.raises(UserError, match=re.escape(str(path))):
            check_entries(read_checkpoint(path), path, resumes=True)
        return
    run = tmp_path / "run"
    assert_refused(capsys, path, [*command, f"--trainer.default_root_dir={run}", f"--ckpt_path={path}"])
    assert not (run / "codebook").exists()


def numbers(checkpoint: dict[str, Any], change) -> None:
    checkpoint["state_dict"]["quantizer.codebook"] = change(checkpoint["state_dict"]["quantizer.codebook"])


def moments(checkpoint: dict[str, Any], change) -> None:
    state = checkpoint["optimizer_states"][0]["state"]
    state[0]["exp_avg"] = change(state[0]["exp_avg"])


TENSORS = {
    "another shape": lambda x: x[:32], "transposed": lambda x: x.T, "a scalar": lambda x: x.sum(),
    "one atom NaN": lambda x: x.index_fill(0, torch.tensor(3), float("nan")), "infinite": lambda x: x / 0,
    "enormous": lambda x: torch.zeros(1).expand(1 << 20, 1 << 20), "meta": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(), "quantized": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
    "text": lambda x: "text", "none": lambda x: None,
}  # fmt: skip


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "init_from", "codebook"])
@pytest.mark.parametrize("wrong", TENSORS)
def test_atoms_that_are_none_are_refused_by_every_reader(altered, capsys, tmp_path, command, verb, wrong):
    path = altered(lambda checkpoint: numbers(checkpoint, TENSORS[wrong]))
    if verb == "codebook":
        with pytest.raises(UserError, match=r"altered\.ckpt") as error:
            load_codebook(path)
        assert "\n" not in str(error.value)
        return
    arguments = [*command, f"--trainer.default_root_dir={tmp_path / 'run'}"]
    if verb in ("validate", "test"):
        arguments = [verb, *arguments[1:]]
    assert_refused(capsys, path, [*arguments, f"--{'model.init_from' if verb == 'init_from' else 'ckpt_path'}={path}"])


@pytest.mark.parametrize("wrong", TENSORS)
def test_moments_that_do_not_fit_are_refused(altered, capsys, tmp_path, command, wrong):
    if wrong in ("a scalar", "none"):
        pytest.skip("another optimizer may have it")
    path = altered(lambda checkpoint: moments(checkpoint, TENSORS[wrong]))
    assert_refused(capsys, path, [*command, f"--trainer.default_root_dir={tmp_path}", f"--ckpt_path={path}"])


def inside(*names: str | int):
    """Set the entry at the end of a path of keys to a value."""

    def change(checkpoint: Any, value: Any) -> None:
        for name in names[:-1]:
            checkpoint = checkpoint[name]
        replace(checkpoint, names[-1], value)

    return change


INSIDE = {
    ("state_dict", "quantizer.codebook"): MISSING, ("state_dict", "quantizer.more"): torch.zeros(2),
    ("ddcm", "quantizer"): MISSING, ("ddcm", "latent_digest"): "0" * 16, ("ddcm", "fit"): {"usage": "much"},
    ("ddcm", "quantizer", "class"): ["HardQuantizer"], ("ddcm", "quantizer", "config", "codebook_size"): 1 << 40,
    ("optimizer_states", 0, "state"): {}, ("optimizer_states", 0, "param_groups"): [],
    ("optimizer_states", 0, "param_groups", 0, "lr"): "fast", ("optimizer_states", 0, "state", 0, "step"): MISSING,
    ("lr_schedulers", 0, "last_epoch"): 3, ("lr_schedulers", 0): None, ("loops", "fit_loop"): {},
    ("loops", "fit_loop", "epoch_loop.batch_progress"): None,
    ("loops", "fit_loop", "epoch_loop.batch_progress", "total", "ready"): -1,
    ("loops", "fit_loop", "epoch_progress", "current", "ready"): "one",
    ("loops", "fit_loop", "state_dict", "combined_loader", 0): {"position": "six", "layout": []},
    ("pytorch-lightning_version",): "newest",
}  # fmt: skip


@pytest.mark.parametrize("names", INSIDE, ids=lambda names: "/".join(map(str, names)))
def test_entries_inside_entries_are_refused(altered, capsys, tmp_path, command, names):
    path = altered(lambda checkpoint: inside(*names)(checkpoint, INSIDE[names]))
    arguments = [*command, f"--trainer.default_root_dir={tmp_path / 'run'}", "--trainer.max_steps=8"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, f"--ckpt_path={path}"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert stop.value.code == 2 and ("altered.ckpt" in line or "--ckpt_path was fitted with" in line)
