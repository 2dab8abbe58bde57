"""When a codebook starts from k-means: once, whatever saves, restores, validates or fits before."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")

import lightning as L

from ddcm.errors import UserError
from ddcm.fit.cli import main
from ddcm.fit.data import LatentData
from ddcm.fit.module import CodebookModule
from ddcm.quantize import HardQuantizer, ProjectedQuantizer, ResidualQuantizer, SoftQuantizer
from ddcm.quantize.pretrained import load_codebook
from tests.conftest import EXAMPLES

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def fitted_error(command, tmp_path):
    """``fitted_error(*options)`` fits and returns the metrics of the export."""

    def run(*options: str) -> dict[str, float]:
        main([*command, f"--trainer.default_root_dir={tmp_path / 'run'}", *options])
        return load_codebook(tmp_path / "run" / "codebook").config["fit"]

    return run


TUNERS = {
    "learning rate": ("LearningRateFinder", "num_training_steps=3"),
    "batch size": ("BatchSizeFinder", "max_trials=1"),
}


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_callback_that_restores_a_checkpoint_does_not_skip_kmeans(fitted_error, tuner):
    name, option = TUNERS[tuner]
    plain = fitted_error()
    tuned = fitted_error(f"--trainer.callbacks+={name}", f"--trainer.callbacks.{option}")
    assert tuned["quantisation_error_start"] == pytest.approx(plain["quantisation_error_start"], rel=0.2)
    assert tuned["quantisation_error"] < 1.2 * plain["quantisation_error"] < 0.03


def test_a_resumed_fit_that_a_tuner_restarts_is_refused(command, trained, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--trainer.max_steps=8", f"--trainer.default_root_dir={tmp_path}", f"--ckpt_path={trained}",
              "--trainer.callbacks+=LearningRateFinder", "--trainer.callbacks.num_training_steps=3"])  # fmt: skip
    assert stop.value.code == 2 and "resume without it" in capsys.readouterr().err


@pytest.fixture
def data(latents) -> LatentData:
    return LatentData(str(EXAMPLES), "tiny", str(latents), batch_size=2, window_frames=32)


def trainer(**options) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_steps=3,
        val_check_interval=3, check_val_every_n_epoch=None, num_sanity_val_steps=0, enable_checkpointing=False,
        limit_val_batches=1, **options,
    )  # fmt: skip


KINDS = {
    "hard": lambda: HardQuantizer(64), "ema": lambda: HardQuantizer(64, learn="ema"), "soft": lambda: SoftQuantizer(64),
    "residual": lambda: ResidualQuantizer(2, HardQuantizer(64)),
    "projected": lambda: ProjectedQuantizer(HardQuantizer(64, 6)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_kmeans_runs_once_for_each_quantizer(data, kind, monkeypatch, tmp_path):
    module, starts = CodebookModule(KINDS[kind](), "tiny", init_batches=2, listen_every=0), []
    real = CodebookModule._initialise
    monkeypatch.setattr(CodebookModule, "_initialise", lambda self: starts.append(real(self)))
    assert not module.quantizer.initialised
    first = trainer()
    first.fit(module, data)
    assert module.quantizer.initialised and len(starts) == 1
    first.save_checkpoint(tmp_path / "a.ckpt")

    trainer().fit(module, data)  # the same module again
    assert len(starts) == 1
    trainer().validate(module, data, ckpt_path=tmp_path / "a.ckpt", verbose=False)
    trainer().fit(module, data)  # goes on from the codebook that was validated
    assert len(starts) == 1

    loaded = CodebookModule.load_from_checkpoint(tmp_path / "a.ckpt", backbone="tiny", listen_every=0)
    trainer().fit(loaded, data)
    assert len(starts) == 1

    other = CodebookModule(KINDS[kind](), "tiny", init_batches=2, listen_every=0)
    with pytest.raises(UserError, match="not fitted"):
        trainer().validate(other, data, verbose=False)
    trainer().fit(other, data)
    assert len(starts) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_says_so_and_older_states_too(kind):
    quantizer = KINDS[kind]()
    again = KINDS[kind]()
    again.load_state_dict(quantizer.state_dict())
    assert not again.initialised
    quantizer.initialise(torch.randn(200, 8, generator=torch.Generator().manual_seed(0)))
    again.load_state_dict(quantizer.state_dict())
    assert again.initialised and quantizer.initialised
    older = {name: x for name, x in quantizer.state_dict().items() if not name.endswith("initialised")}
    again = KINDS[kind]()
    again.load_state_dict(older)
    assert again.initialised and not [name for name in older if name.endswith("initialised")]


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_random_atoms_are_not_measured(command, trained, tmp_path, capsys, verb):
    arguments = [verb, *command[1:], f"--trainer.default_root_dir={tmp_path}"]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and f"{verb} needs a fitted codebook" in capsys.readouterr().err
    printed = []
    for given in (f"--ckpt_path={trained}", f"--model.init_from={trained}", f"--model.init_from={exported(trained)}"):
        main([*arguments, given])
        printed.append([line for line in capsys.readouterr().out.splitlines() if "quantisation_error" in line])
    assert printed[0] == printed[1] == printed[2] != []


def exported(last: Path) -> Path:
    return last.parents[1] / "codebook"
