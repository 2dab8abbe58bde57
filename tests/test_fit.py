"""Fitting, through the command line as a user runs it, on the random backbone and the six examples."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")

from ddcm.backbone.tiny import tiny_backbone
from ddcm.errors import UserError
from ddcm.fit import cache
from ddcm.fit.cache import encode_all
from ddcm.fit.cli import main
from ddcm.fit.data import LatentData
from ddcm.fit.manifest import read_manifest, split_entries
from ddcm.fit.module import CodebookModule
from ddcm.quantize.checkpoint import load_codebook
from tests.kinds import FIT_KINDS

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="session")
def latents(tmp_path_factory) -> Path:
    """One cache for the whole session: the examples are encoded once."""
    return tmp_path_factory.mktemp("latents")


@pytest.fixture
def fit(tmp_path, latents):
    """``fit(name, *options)`` runs configs/tiny.yaml below tmp_path/name and returns that folder."""

    def run(name: str, *options: str, configs: tuple[Path, ...] = (ROOT / "configs" / "tiny.yaml",)) -> Path:
        folder = tmp_path / name
        given = [part for config in configs for part in ("-c", str(config))]
        main(
            ["fit", *given, f"--data.root={EXAMPLES}", f"--data.cache_dir={latents}", "--model.backbone=tiny",
             f"--trainer.default_root_dir={folder}", "--trainer.enable_progress_bar=false",
             "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu", *options]
        )  # fmt: skip
        return folder

    return run


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
    figures = codebook.config["fit"]
    assert figures["quantisation_error"] < 0.95 * figures["quantisation_error_start"]
    assert 0 < figures["usage"] <= 1 and 0 < figures["kbps"] <= 400 * 7 / 1000
    assert "k-means start" in capsys.readouterr().out
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == {"quantizer.codebook", "quantizer.usage", "quantizer.steps"}
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


# 7 batches make an epoch: in its middle and at its end.
@pytest.mark.parametrize("kind, validate_every", [("hard-gradient", 5), *((kind, 7) for kind in FIT_KINDS)])
def test_killed_and_resumed_is_never_killed(fit, monkeypatch, kind, validate_every):
    options = (
        *FIT_KINDS[kind], "--trainer.max_steps=35", "--model.listen_every=0",
        f"--trainer.val_check_interval={validate_every}", "--trainer.logger=false",
    )  # fmt: skip
    whole = fit("whole", *options)
    kill_at = 2 * validate_every + 2

    def killed(self, *_):
        if self.global_step == kill_at:
            raise ConnectionError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(CodebookModule, "on_train_batch_end", killed)
        with pytest.raises(ConnectionError):
            fit("cut", *options)
    last = whole.parent / "cut" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 2 * validate_every
    cut = fit("cut", *options, f"--ckpt_path={last}")
    assert torch.load(last, weights_only=True)["global_step"] == 35
    assert differing(whole, cut) == []
    figures = [load_codebook(folder / "codebook").config["fit"] for folder in (whole, cut)]
    assert figures[0] == figures[1]


def test_resuming_with_another_quantizer_is_refused(fit, capsys):
    folder = fit("run", "--trainer.max_steps=2", "--trainer.val_check_interval=2", "--model.listen_every=0")
    with pytest.raises(SystemExit) as stop:
        fit("run", "--model.quantizer.decay=0.5", f"--ckpt_path={folder / 'checkpoints/last.ckpt'}")
    assert stop.value.code == 2 and "--ckpt_path was fitted with quantizer" in capsys.readouterr().err


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_every_config_runs_two_steps(fit, config):
    base = ROOT / "configs" / "fit.yaml"
    configs = (config,) if "trainer:" in config.read_text() else (base, config)
    folder = fit(
        "run", "--trainer.max_steps=2", "--trainer.val_check_interval=1", "--data.batch_size=2", configs=configs
    )
    assert load_codebook(folder / "codebook").config["fit"]["step"] in (1, 2)
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
    assert codebook.quantizer.levels == 2 and codebook.quantizer.stack[0].config["temperature"] == 1.0
    assert 2 < codebook.config["fit"]["bits_per_cell"] <= 8


def test_diffusion_term_reaches_the_atoms(fit):
    options = ("--trainer.max_steps=3", "--trainer.val_check_interval=3", "--model.listen_every=0")
    plain = fit("plain", *options)
    weighted = fit("weighted", *options, "--model.diffusion_weight=1.0")
    assert "quantizer.codebook" in differing(plain, weighted)
    assert state(weighted / "checkpoints/last.ckpt").keys() == state(plain / "checkpoints/last.ckpt").keys()


def test_validate_and_test_give_figures(fit, latents, capsys):
    folder = fit("run", "--trainer.max_steps=2", "--trainer.val_check_interval=2", "--model.listen_every=0")
    for verb in ("validate", "test"):
        main(
            [verb, "-c", str(folder / "config.yaml"), f"--ckpt_path={folder / 'checkpoints/last.ckpt'}",
             "--trainer.logger=false"]
        )  # fmt: skip
        assert "quantisation_error" in capsys.readouterr().out


def test_bad_root_is_one_line_and_exit_code_2(fit, tmp_path, capsys):
    done = subprocess.run(
        [sys.executable, "train.py", "fit", "-c", "configs/tiny.yaml", "--data.root", "absent"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert len(errors) == 1 and "absent" in errors[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as stop:
        fit("run", f"--data.root={tmp_path / 'empty'}")
    assert stop.value.code == 2 and f"error: no audio in {tmp_path / 'empty'}" in capsys.readouterr().err


# The cache.


def test_cut_encoding_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SHARD_FILES", 2)
    entries, backbone = read_manifest(EXAMPLES), tiny_backbone()
    encoded = []

    def counted(path, backbone, stop_at=None):
        if len(encoded) == stop_at:
            raise KeyboardInterrupt
        encoded.append(path.name)
        return original(path, backbone)

    original = cache.encode_file
    monkeypatch.setattr(cache, "encode_file", lambda path, backbone: counted(path, backbone, stop_at=3))
    with pytest.raises(KeyboardInterrupt):
        encode_all(entries, backbone, tmp_path)
    assert len(list(tmp_path.rglob("*.json"))) == 1  # the first shard; nothing of the second
    assert len(list(tmp_path.rglob("*.f16"))) == 1
    monkeypatch.setattr(cache, "encode_file", counted)
    resumed = encode_all(entries, backbone, tmp_path)
    assert encoded == [entries[i].path.name for i in (0, 1, 2, 2, 3, 4, 5)]
    encode_all(entries, backbone, tmp_path)
    assert len(encoded) == 7  # nothing twice
    fresh = encode_all(entries, backbone, tmp_path / "fresh")
    assert fresh.spans == resumed.spans
    for number in range(3):
        assert (fresh.shard(number) == resumed.shard(number)).all()


def test_frames_are_those_of_the_audio(tmp_path):
    import soundfile

    latents = encode_all(read_manifest(EXAMPLES), tiny_backbone(), tmp_path)
    for entry, (_, _, frames) in zip(read_manifest(EXAMPLES), latents.spans, strict=True):
        assert frames == -(-soundfile.info(entry.path).frames // 640)


def test_unreadable_files_are_left_out_with_one_warning(tmp_path):
    for path in EXAMPLES.glob("*.flac"):
        shutil.copy(path, tmp_path)
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    (tmp_path / "empty.flac").touch()
    with pytest.warns(UserWarning, match="2 of 8 files left out") as caught:
        latents = encode_all(read_manifest(tmp_path), tiny_backbone(), tmp_path / "cache")
    assert sum("left out" in str(w.message) for w in caught) == 1
    assert sum(frames == 0 for _, _, frames in latents.spans) == 2
    assert len(json.loads(next(tmp_path.rglob("index.json")).read_text())["errors"]) == 2


def test_manifest_with_splits(tmp_path, latents):
    rows = ["path,split"] + [f"{path},{'val' if path.stem == 'bird' else 'train'}" for path in EXAMPLES.glob("*.flac")]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    data = LatentData(str(tmp_path / "list.csv"), "tiny", str(latents), window_frames=16)
    data.setup("fit")
    assert {Path(path).stem for path in data.windows["val"].paths} == {"bird"}
    assert {Path(path).stem for path in data.windows["train"].paths} == {
        "ambience", "drumloop", "drumroll", "melodic", "speech"
    }  # fmt: skip
    item = data.windows["val"][1]
    assert item["z"].shape == (8, 16, 16) and item["z"].dtype == torch.float32 and item["path"].endswith("bird.flac")
    (tmp_path / "bad.csv").write_text("path,split\na.wav,dev\n")
    with pytest.raises(UserError, match="line 2: split 'dev'"):
        read_manifest(tmp_path / "bad.csv")


def test_windows_are_the_frames_in_order(latents):
    data = LatentData(str(EXAMPLES), "tiny", str(latents), window_frames=23)
    data.setup("fit")
    windows = data.windows["train"]
    parts = []
    for index in windows.chosen:
        shard, start, frames = windows.latents.spans[index]
        parts.append(torch.from_numpy(windows.latents.shard(shard)[start : start + frames].copy()))
    joined = torch.cat([windows[i]["z"] for i in range(len(windows))], dim=1)
    assert torch.equal(joined, torch.cat(parts).float().transpose(0, 1)[:, : joined.shape[1]])


@pytest.mark.parametrize("count", [1, 2, 6, 50])
def test_every_split_has_a_file(count, tmp_path):
    for index in range(count):
        (tmp_path / f"{index}.wav").touch()
    splits = split_entries(read_manifest(tmp_path))
    assert splits["train"] and splits["val"]
    if count > 1:
        assert sorted(splits["train"] + splits["val"]) == list(range(count))
