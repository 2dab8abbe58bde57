"""Fitting, through the command line as a user runs it, on the random backbone and the six examples."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")

from ddcm.backbone.tiny import tiny_backbone
from ddcm.fit.arguments import find_config
from ddcm.fit.callbacks import _restore
from ddcm.fit.cli import main
from ddcm.fit.module import CodebookModule
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import load_codebook
from tests.conftest import Killed
from tests.helpers.fit_kinds import FIT_KINDS
from tests.helpers.forked import forked

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))

pytestmark = pytest.mark.filterwarnings("ignore")


def state(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def differing(one: Path, other: Path) -> list[str]:
    a, b = state(one / "checkpoints/last.ckpt"), state(other / "checkpoints/last.ckpt")
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def test_fit_improves_on_kmeans_and_leaves_what_it_promises(fit, capsys):
    folder = fit("run", "--model.quantizer.codebook_size=128", "--trainer.max_steps=120", "--model.init_batches=1")
    names = {path.name for path in folder.iterdir()}
    assert {"checkpoints", "codebook", "config.yaml", "lightning_logs"} <= names
    codebook = load_codebook(folder / "codebook")
    codebook.check(tiny_backbone())
    metrics = codebook.config["fit"]
    assert metrics["quantisation_error"] < 0.95 * metrics["quantisation_error_start"]
    assert 0 < metrics["usage"] <= 1 and 0 < metrics["kbps"] <= 400 * 7 / 1000
    assert "k-means start" in capsys.readouterr().out
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == {
        f"quantizer.{name}" for name in ("codebook", "usage", "steps", "initialised")
    }
    (best,) = (folder / "checkpoints").glob("best*.ckpt")
    assert torch.equal(load_codebook(best).quantizer.codebook, codebook.quantizer.codebook)
    (board,) = folder.glob("lightning_logs/*/events*")
    events = board.read_bytes()
    tags = (
        "val/quantisation_error_start",
        "val/log_mel_mae_db",
        "val/kbps",
        "train/codebook",
        "mel",
        "audio/after",
        "codebook",
        "train/cells_per_s",
        "val/bits_per_cell",
        "by_kilocells/quantisation_error",
    )
    assert all(tag.encode() in events for tag in tags)


WORSE = ("--model.learning_rate=3", "--trainer.max_steps=4", "--trainer.val_check_interval=2", "--model.listen_every=0",
         "--trainer.logger=false")  # fmt: skip


def test_a_fit_that_is_worse_than_its_start_says_so_and_exports_the_start(fit, capsys, tmp_path):
    folder = fit("run", *WORSE)
    said = capsys.readouterr().out
    assert "the fit did not improve on its start: quantisation_error" in said and "the start is exported" in said
    last = folder / "checkpoints/last.ckpt"
    start = torch.load(last, weights_only=True)["callbacks"]["ExportCodebook"]["start"]
    exported = load_codebook(folder / "codebook")
    metrics = exported.config["fit"]
    assert metrics["step"] == 0 and metrics["quantisation_error"] == metrics["quantisation_error_start"]
    assert torch.equal(exported.quantizer.codebook, start["codebook"])
    (best,) = (folder / "checkpoints").glob("best*.ckpt")
    assert not torch.equal(load_codebook(best).quantizer.codebook, start["codebook"])

    resumed = fit("moved", *WORSE, "--trainer.max_steps=6", f"--ckpt_path={last}")
    assert "the start is exported" in capsys.readouterr().out
    assert torch.equal(load_codebook(resumed / "codebook").quantizer.codebook, start["codebook"])


@pytest.mark.parametrize("state", [{}, None, "text", {"codebook": torch.zeros(3)}, "NaN"], ids=str)
def test_a_start_that_does_not_fit_is_not_exported(state):
    quantizer = HardQuantizer(4)
    own = quantizer.state_dict()
    assert torch.equal(_restore(quantizer, own).codebook, quantizer.codebook)
    assert _restore(quantizer, {**own, "codebook": torch.full((4, 8), torch.nan)} if state == "NaN" else state) is None


# 7 batches make an epoch: in its middle and at its end.
@pytest.mark.parametrize("kind, validate_every", [("hard-gradient", 5), *((kind, 7) for kind in FIT_KINDS)])
def test_killed_and_resumed_is_never_killed(fit, monkeypatch, kind, validate_every):
    options = (
        *FIT_KINDS[kind], f"--trainer.max_steps={3 * validate_every}", "--model.listen_every=0",
        f"--trainer.val_check_interval={validate_every}", "--trainer.logger=false",
    )  # fmt: skip
    whole = fit("whole", *options)
    kill_at = 2 * validate_every + 2

    def killed(self, *_):
        if self.global_step == kill_at:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(CodebookModule, "on_train_batch_end", killed)
        with pytest.raises(Killed):
            fit("cut", *options)
    last = whole.parent / "cut" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 2 * validate_every
    cut = fit("cut", *options, f"--ckpt_path={last}")
    assert torch.load(last, weights_only=True)["global_step"] == 3 * validate_every
    assert differing(whole, cut) == []
    metrics = [load_codebook(folder / "codebook").config["fit"] for folder in (whole, cut)]
    assert metrics[0] == metrics[1]


def test_a_second_fit_in_a_folder_exports_its_own_best(fit):
    options = ("--trainer.max_steps=4", "--trainer.val_check_interval=2", "--model.listen_every=0")
    fit("run", *options)
    folder = fit("run", *options, "--model.quantizer.codebook_size=32")  # its best is named best-...-v1
    codebook = load_codebook(folder / "codebook")
    assert codebook.quantizer.codebook_size == 32 and codebook.config["fit"]["step"] in (0, 2, 4)  # 0: its start


def test_a_fit_goes_on_from_a_codebook(fit, capsys):
    options = ("--trainer.max_steps=20", "--trainer.val_check_interval=10", "--model.listen_every=0")
    folder = fit("first", *options)
    first, second = (
        load_codebook(path / "codebook").config["fit"]
        for path in (folder, fit("second", *options, f"--model.init_from={folder / 'codebook'}"))
    )
    assert second["quantisation_error_start"] == pytest.approx(first["quantisation_error"], rel=1e-5)
    with pytest.raises(SystemExit) as stop:
        fit("third", *options, f"--model.init_from={folder / 'codebook'}", "--model.quantizer.codebook_size=32")
    assert stop.value.code == 2 and "'codebook_size': 64" in capsys.readouterr().err


def test_resuming_with_another_quantizer_is_refused(fit, capsys):
    folder = fit("run", "--trainer.max_steps=2", "--trainer.val_check_interval=2", "--model.listen_every=0")
    with pytest.raises(SystemExit) as stop:
        fit("run", "--model.quantizer.decay=0.5", f"--ckpt_path={folder / 'checkpoints/last.ckpt'}")
    assert stop.value.code == 2 and "--ckpt_path was fitted with quantizer" in capsys.readouterr().err


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_every_config_runs_two_steps(fit, config, tmp_path):
    base = ROOT / "configs" / "fit.yaml"
    configs = (config,) if config.name in ("fit.yaml", "tiny.yaml") else (base, config)
    here = () if config.name == "tiny.yaml" else ("--trainer.devices=1", "--trainer.num_nodes=1")  # not a cluster
    listening = () if config.name in ("fit.yaml", "tiny.yaml") else ("--model.listen_every=0",)
    options = ("--trainer.max_steps=2", "--trainer.val_check_interval=1", "--data.batch_size=2", *here, *listening)
    forked(lambda: fit("run", *options, configs=configs))
    folder = tmp_path / "run"
    assert load_codebook(folder / "codebook").config["fit"]["step"] in (0, 1, 2)  # 0: the start
    if config.name == "ema.yaml":  # the overlay changes one thing and keeps the rest
        assert load_codebook(folder / "codebook").quantizer.config["learn"] == "ema"
        assert load_codebook(folder / "codebook").quantizer.codebook_size == 1024


def test_more_atoms_than_cells_are_refused(fit, capsys):
    with pytest.raises(SystemExit) as stop:
        fit("run", "--model.quantizer.codebook_size=5000", "--model.init_batches=1")
    assert stop.value.code == 2 and "codebook_size 5000 is larger than the 1024 cells" in capsys.readouterr().err


def test_early_stopping_on_the_named_metric(fit):
    folder = fit(
        "run", "--trainer.max_steps=60", "--trainer.val_check_interval=1", "--early_stopping.patience=2",
        "--early_stopping.min_delta=10", "--model.listen_every=0",
    )  # fmt: skip
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 3


def test_temperature_is_logged_and_residual_levels_are_exported(fit):
    level = "--model.quantizer.level"
    folder = fit(
        "run", "--model.quantizer=ddcm.quantize.ResidualQuantizer", "--model.quantizer.levels=2",
        f"{level}=ddcm.quantize.SoftQuantizer", f"{level}.init_args.codebook_size=16", "--trainer.max_steps=10",
        "--trainer.val_check_interval=5",
    )  # fmt: skip
    (board,) = folder.glob("lightning_logs/*/events*")
    assert b"train/temperature" in board.read_bytes()
    codebook = load_codebook(folder / "codebook")
    assert codebook.quantizer.num_quantizers == 2 and codebook.quantizer.stack[0].config["temperature"] == 1.0
    assert 2 < codebook.config["fit"]["bits_per_cell"] <= 8


def test_diffusion_term_reaches_the_atoms_and_the_best_denoises_best(fit):
    options = ("--trainer.max_steps=3", "--trainer.val_check_interval=1", "--model.listen_every=0")
    plain = fit("plain", *options)
    weighted = fit("weighted", *options, "--model.diffusion_weight=1.0", "--best.monitor=val/denoising_error")
    assert "quantizer.codebook" in differing(plain, weighted)
    assert state(weighted / "checkpoints/last.ckpt").keys() == state(plain / "checkpoints/last.ckpt").keys()
    metrics = load_codebook(weighted / "codebook").config["fit"]
    kept = torch.load(weighted / "checkpoints/last.ckpt", weights_only=True)["callbacks"].values()
    (best,) = [float(one["best_model_score"]) for one in kept if one.get("monitor")]
    assert metrics["denoising_error"] == pytest.approx(best) and metrics["denoising_error_start"] > 0
    assert "denoising_error" not in load_codebook(plain / "codebook").config["fit"]


def test_validate_and_test_give_figures(fit, latents, capsys):
    folder = fit("run", "--trainer.max_steps=2", "--trainer.val_check_interval=2", "--model.listen_every=0")
    for verb in ("validate", "test"):
        main(
            [verb, "-c", str(folder / "config.yaml"), f"--ckpt_path={folder / 'checkpoints/last.ckpt'}",
             "--trainer.logger=false"]
        )  # fmt: skip
        assert "quantisation_error" in capsys.readouterr().out


def test_shipped_configurations_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("fit.yaml", "ema.yaml"):
        assert Path(find_config(name)).samefile(ROOT / "configs" / name)
    Path("ema.yaml").write_text("model: {seed: 7}")
    assert find_config("ema.yaml") == "ema.yaml"  # the path as written comes first
    assert find_config("absent.yaml") == "absent.yaml" and find_config("model: {seed: 7}") == "model: {seed: 7}"
    forked(lambda: main(["fit", "-c", "tiny.yaml", f"--data.root={EXAMPLES}", "--trainer.max_steps=1",
                         "--trainer.logger=false", "--model.listen_every=0"]))  # fmt: skip
    assert (tmp_path / "runs" / "tiny" / "codebook" / "config.json").is_file()


def test_a_configuration_that_is_nowhere_is_one_line_and_exit_code_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "-c", "nowhere.yaml"])
    assert stop.value.code == 2 and "nowhere.yaml" in capsys.readouterr().err


def test_bad_roots_are_one_line_and_exit_code_2(fit, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for root, message in (("absent", "--data.root absent"), (tmp_path / "empty", f"no audio in {tmp_path / 'empty'}")):
        with pytest.raises(SystemExit) as stop:
            fit("run", f"--data.root={root}")
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert stop.value.code == 2 and len(errors) == 1 and f"error: {message}" in errors[0]
    for data in ((), ("--data", "ddcm.fit.data.StreamedLatents")):
        with pytest.raises(SystemExit) as stop:
            main(["fit", "-c", str(ROOT / "configs/tiny.yaml"), *data])
        assert stop.value.code == 2 and "error: --data.root is missing: give " in capsys.readouterr().err
