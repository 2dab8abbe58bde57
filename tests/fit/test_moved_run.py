"""A run that was moved, copied or mounted elsewhere goes on with its best checkpoint and its metrics."""

import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")

from ddcm.fit.cli import main
from ddcm.quantize.pretrained import load_codebook

pytestmark = pytest.mark.filterwarnings("ignore")

SHORT = ("--trainer.val_check_interval=2", "--trainer.limit_val_batches=1")


@pytest.fixture(scope="module")
def fit_on(command):
    """Goes on to step 8, at a rate that makes the codebook worse: the best checkpoint stays that of step 4."""

    def run(folder: Path, last: Path) -> Path:
        options = (f"--ckpt_path={last}", "--trainer.max_steps=8", "--model.learning_rate=0.5")
        main([*command, *SHORT, *options, f"--trainer.default_root_dir={folder}"])
        return folder

    return run


@pytest.fixture(scope="module")
def runs(command, fit_on, tmp_path_factory) -> tuple[Path, Path]:
    """A run of 4 steps, and one that went on to 8 where it was."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("cut", "stayed"):
        main([*command, *SHORT, "--trainer.max_steps=4", f"--trainer.default_root_dir={folder / name}"])
        forget_start(folder / name / "checkpoints" / "last.ckpt")
    return folder / "cut", fit_on(folder / "stayed", folder / "stayed/checkpoints/last.ckpt")


def forget_start(path: Path) -> None:
    """Remove the state before the first step, which is better than what follows and would be exported."""
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"]["ExportCodebook"].pop("start")
    torch.save(checkpoint, path)


def move(cut: Path, to: Path) -> tuple[Path, Path]:
    """``mv runs/a runs/b``: the run's folder is another one, and the old one is gone."""
    shutil.copytree(cut, to)
    return to, to / "checkpoints" / "last.ckpt"


def other_root(cut: Path, to: Path) -> tuple[Path, Path]:
    """The checkpoints stay where they are; the run goes on in another folder."""
    return to, cut / "checkpoints" / "last.ckpt"


def copy_last(cut: Path, to: Path) -> tuple[Path, Path]:
    """The last checkpoint was copied away alone; the best one is where the run goes on."""
    shutil.copytree(cut, to)
    shutil.copy(cut / "checkpoints" / "last.ckpt", to.parent / "copied.ckpt")
    return to, to.parent / "copied.ckpt"


def rewrite(prefix: str):
    """Paths of another machine in the checkpoint."""

    def place(cut: Path, to: Path) -> tuple[Path, Path]:
        shutil.copytree(cut, to)
        path = to / "checkpoints" / "last.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state:
                elsewhere = lambda old: prefix + Path(old).name if old else old  # noqa: E731
                for name in ("best_model_path", "kth_best_model_path", "last_model_path", "dirpath"):
                    state[name] = elsewhere(state[name])
                state["best_k_models"] = {elsewhere(old): score for old, score in state["best_k_models"].items()}
        torch.save(checkpoint, path)
        return to, path

    return place


def relative(cut: Path, to: Path) -> tuple[Path, Path]:
    to, path = move(cut, to)
    return Path(to.name), path


def over_another(cut: Path, to: Path) -> tuple[Path, Path]:
    """The folder where it goes on has checkpoints of another run under the same names."""
    shutil.copytree(cut, to)
    for path in (to / "checkpoints").iterdir():
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["state_dict"]["quantizer.codebook"] += 1
        torch.save(checkpoint, path)
    return to, cut / "checkpoints" / "last.ckpt"


PLACES = {
    "moved": move, "another root": other_root, "last copied alone": copy_last, "container": rewrite("/mnt/runs/x/"),
    "windows": rewrite("C:\\runs\\x\\"), "bucket": rewrite("s3://bucket/runs/"), "relative": relative,
    "over another run": over_another,
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_the_best_is_that_of_the_run_that_stayed(runs, fit_on, tmp_path, monkeypatch, capsys, place):
    monkeypatch.chdir(tmp_path)
    cut, stayed = runs
    folder, last = PLACES[place](cut, tmp_path / "b")
    fit_on(folder, last)
    wanted, got = load_codebook(stayed / "codebook"), load_codebook(folder / "codebook")
    assert wanted.config["fit"]["step"] == 4 and wanted.config == got.config
    assert torch.equal(wanted.quantizer.codebook, got.quantizer.codebook)
    table = capsys.readouterr().out
    assert "step 4" in table and " -" not in table.replace("k-means", "")


def test_without_the_best_file_the_best_from_here_on_is_exported_with_a_warning(runs, fit_on, tmp_path, capsys):
    cut, _ = runs
    shutil.copy(cut / "checkpoints" / "last.ckpt", tmp_path / "alone.ckpt")
    checkpoint = torch.load(cut / "checkpoints" / "best-step=4.ckpt", weights_only=True)  # of another run
    for state in checkpoint["callbacks"].values():
        state |= {"best_model_score": torch.tensor(0.001)} if state.get("monitor") else {}
    (tmp_path / "b" / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, tmp_path / "b" / "checkpoints" / "best-step=4.ckpt")
    fit_on(tmp_path / "b", tmp_path / "alone.ckpt")
    fit = load_codebook(tmp_path / "b" / "codebook").config["fit"]
    assert fit["step"] == 6 and fit["quantisation_error"] > 0
    assert "best-step=4.ckpt, is in neither of" in capsys.readouterr().err


def test_files_that_the_checkpoint_names_elsewhere_are_neither_read_nor_removed(runs, fit_on, tmp_path):
    cut, _ = runs
    secret = tmp_path / "precious" / "best-step=1.ckpt"
    secret.parent.mkdir()
    shutil.copy(cut / "checkpoints" / "best-step=4.ckpt", secret)
    folder, last = move(cut, tmp_path / "b")
    checkpoint = torch.load(last, weights_only=True)
    for state in checkpoint["callbacks"].values():
        if state.get("monitor"):
            state |= {
                "best_model_path": str(secret),
                "kth_best_model_path": str(secret),
                "kth_value": torch.tensor(9.0),
            }
            state |= {"best_k_models": {str(secret): torch.tensor(9.0)}, "best_model_score": torch.tensor(9.0)}
            state["dirpath"] = str(secret.parent)
    torch.save(checkpoint, last)
    fit_on(folder, last)
    assert secret.is_file() and load_codebook(folder / "codebook").config["fit"]["step"] == 6
