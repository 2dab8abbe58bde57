"""The cache of latents: encoded once, shared, resumed after a kill, and refused when it is not what it says."""

import contextlib
import errno
import functools
import io
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("lightning")

from ddcm.backbone.tiny import tiny_backbone
from ddcm.errors import UserError
from ddcm.fit.cli import main
from ddcm.fit.data import cache, shards
from ddcm.fit.data.cache import encode_all
from ddcm.fit.data.latent_data import LatentData
from ddcm.fit.data.manifest import read_manifest
from tests.conftest import EXAMPLES, ROOT
from tests.helpers.forked import forked


def cheap_encoder(path: Path, backbone) -> torch.Tensor:
    """In the VAE's place where only the bookkeeping is judged: 128 samples make a frame."""
    samples, _ = soundfile.read(path, dtype="float32")
    return torch.from_numpy(samples[: len(samples) // 128 * 128]).half().view(-1, 8, 16)


@pytest.fixture
def encoded(monkeypatch):
    """Names of the files that are encoded, as they are (by the cheap encoder)."""
    names = []

    def counted(path, backbone):
        names.append(path.name)
        return cheap_encoder(path, backbone)

    monkeypatch.setattr(cache, "encode_file", counted)
    return names


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BITS", 1)  # two files on average


@pytest.fixture
def clips(tmp_path) -> Path:
    """A folder of 24 short clips."""
    folder, random = tmp_path / "clips", np.random.default_rng(0)
    folder.mkdir()
    for number in range(24):
        soundfile.write(folder / f"{number:02d}.wav", 0.3 * random.standard_normal(1600), 16000)
    return folder


BACKBONE = functools.cache(tiny_backbone)


def latents_of(folder: Path, cache_dir: Path) -> list[np.ndarray]:
    """Of each file, in the order of the manifest."""
    latents = encode_all(read_manifest(folder), BACKBONE(), cache_dir)
    return [np.array(latents.shard(shard)[start : start + frames]) for shard, start, frames in latents.spans]


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(".*.part.*"))


# What is encoded, and when.


def test_frames_are_those_of_the_audio(tmp_path):
    latents = encode_all(read_manifest(EXAMPLES), BACKBONE(), tmp_path)
    for entry, (_, _, frames) in zip(read_manifest(EXAMPLES), latents.spans, strict=True):
        assert frames == -(-soundfile.info(entry.path).frames // 640)


def test_nothing_is_encoded_twice_and_one_changed_file_costs_one_shard(tmp_path, clips, encoded, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BITS", 2)
    first = latents_of(clips, tmp_path / "cache")
    assert len(encoded) == 24 and len(list(tmp_path.rglob("*.f16"))) > 3
    encoded.clear()
    assert equal(latents_of(clips, tmp_path / "cache"), first) and encoded == []
    soundfile.write(clips / "11.wav", np.full(1600, 0.1), 16000)
    second = latents_of(clips, tmp_path / "cache")
    assert "11.wav" in encoded and 0 < len(encoded) < 12
    assert not np.array_equal(first[11], second[11]) and equal(first[:11] + first[12:], second[:11] + second[12:])
    encoded.clear()
    soundfile.write(clips / "115.wav", np.full(3200, 0.1), 16000)
    latents_of(clips, tmp_path / "cache")
    assert "115.wav" in encoded and len(encoded) < 13


def test_collections_share_a_folder_and_are_not_mixed_up(tmp_path, clips, encoded):
    """A copy costs nothing; another collection with the same names, sizes and times is another collection."""
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(clips, copy)
    first = latents_of(clips, tmp_path / "cache")
    encoded.clear()
    assert equal(latents_of(copy, tmp_path / "cache"), first) and encoded == []
    shutil.copytree(clips, other)
    for path in other.iterdir():
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        samples, _ = soundfile.read(path)
        soundfile.write(path, samples[::-1], 16000)
        os.utime(path, ns=times)
    assert not equal(latents_of(other, tmp_path / "cache"), first) and len(encoded) == 24
    assert len(list((tmp_path / "cache" / "latents").iterdir())) == 1


def test_unreadable_files_are_left_out_with_one_warning(tmp_path):
    for path in EXAMPLES.glob("*.flac"):
        shutil.copy(path, tmp_path)
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    (tmp_path / "empty.flac").touch()
    with pytest.warns(UserWarning, match="2 of 8 files left out") as caught:
        latents = encode_all(read_manifest(tmp_path), BACKBONE(), tmp_path / "cache")
    assert sum("left out" in str(w.message) for w in caught) == 1
    assert sum(frames == 0 for _, _, frames in latents.spans) == 2 and len(latents.errors) == 2


def test_a_folder_of_unreadable_files_is_refused(tmp_path):
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"no audio")
    for _ in range(2):  # encoded, and from the cache
        with pytest.raises(UserError, match=r"none of 2 files could be read; the first: .*a\.wav"):
            encode_all(read_manifest(tmp_path), BACKBONE(), tmp_path / "cache")


# Killed, and full disks.


def killed_writer(clips: Path, cache_dir: Path) -> None:
    paths = []

    def encode_file(path, backbone):
        paths.append(path)
        if len(paths) == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return cheap_encoder(path, backbone)

    cache.encode_file = encode_file
    encode_all(read_manifest(clips), BACKBONE(), cache_dir)


def test_a_killed_writer_loses_one_shard(tmp_path, clips, encoded, small_shards):
    forked(lambda: killed_writer(clips, tmp_path / "cache"), exit_code=-signal.SIGKILL)
    finished = {path.stem for path in (tmp_path / "cache").rglob("*.f16") if not path.name.startswith(".")}
    plan = shards.plan_shards(read_manifest(clips), shards.read_status(read_manifest(clips)))
    names, bounds = plan.names, plan.bounds
    assert finished == set(names[: len(finished)]) and 0 < len(finished) < len(names)
    assert len(leftovers(tmp_path)) == 1
    resumed = latents_of(clips, tmp_path / "cache")
    assert len(encoded) == 24 - bounds[len(finished)]
    assert equal(resumed, latents_of(clips, tmp_path / "fresh"))
    (left,) = leftovers(tmp_path)  # it could be a running writer's
    os.utime(left, (0, 0))
    assert equal(latents_of(clips, tmp_path / "cache"), resumed) and not leftovers(tmp_path)


def test_a_full_disk_keeps_finished_shards(tmp_path, clips, encoded, small_shards, monkeypatch):
    writes, original = [], os.fsync

    def fsync(descriptor):
        writes.append(descriptor)
        if len(writes) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    monkeypatch.setattr(shards.os, "fsync", fsync)
    with pytest.raises(UserError, match=r"cannot write latents to .* \(no space left on device\); free some space"):
        latents_of(clips, tmp_path / "cache")
    assert not leftovers(tmp_path)
    (kept,) = tmp_path.rglob("*.f16")
    before, encoded[:] = kept.stat().st_mtime_ns, []
    resumed = latents_of(clips, tmp_path / "cache")
    assert 0 < len(encoded) < 24 and kept.stat().st_mtime_ns == before
    assert equal(resumed, latents_of(clips, tmp_path / "fresh"))


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits there")
def test_a_disk_that_is_really_full_is_one_line_and_exit_code_2(tmp_path):
    import resource

    def fit():  # the interpreter ignores SIGXFSZ: what is too long fails like a write to a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        with pytest.raises(SystemExit) as stop, contextlib.redirect_stderr(io.StringIO()) as errors_text:
            main(
                ["fit", f"-c={ROOT}/configs/tiny.yaml", f"--data.root={EXAMPLES}", f"--trainer.default_root_dir={run}",
                 f"--data.cache_dir={tmp_path / 'cache'}", "--trainer.logger=false"]
            )  # fmt: skip
        errors = [line for line in errors_text.getvalue().splitlines() if line.startswith("error:")]
        assert stop.value.code == 2 and len(errors) == 1 and "cannot write latents" in errors[0]

    run = tmp_path / "run"
    forked(fit)
    assert not list((tmp_path / "cache").rglob("*.f16")) and not leftovers(tmp_path)


# What is refused.


def test_a_cache_of_another_backbone_is_refused(tmp_path, clips, encoded):
    latents_of(clips, tmp_path)
    (folder,) = (tmp_path / "latents").iterdir()
    about = json.loads((folder / "cache.json").read_text())
    for change, message in (
        ({"latent_digest": "f" * 64}, "another backbone .latent_digest is ffff"),
        ({"format": 99}, "format is 99"),
        ({"mel": {}}, "mel is {}"),
    ):
        (folder / "cache.json").write_text(json.dumps({**about, **change}))
        with pytest.raises(UserError, match=message) as caught:
            latents_of(clips, tmp_path)
        assert "delete the folder" in str(caught.value)
    for damage in (lambda path: path.write_text("{"), lambda path: path.write_text("[]"), Path.unlink):
        damage(folder / "cache.json")
        with pytest.raises(UserError, match="delete the folder"):
            latents_of(clips, tmp_path)


def test_another_backbone_gets_a_folder_of_its_own(tmp_path, clips, encoded, monkeypatch):
    first = latents_of(clips, tmp_path)
    monkeypatch.setattr(shards, "describe_latents", lambda backbone: {"latent_digest": "other"})
    encoded.clear()
    assert equal(latents_of(clips, tmp_path), first) and len(encoded) == 24
    assert len(list((tmp_path / "latents").iterdir())) == 2


def test_truncated_and_damaged_shards_are_named_and_encoded_again_once_deleted(tmp_path, clips, encoded, small_shards):
    first = latents_of(clips, tmp_path)
    data, about = ([*sorted(tmp_path.rglob(pattern))] for pattern in ("*.f16", "[0-9a-f]*.json"))
    about = [path for path in about if path.name != "cache.json"]
    os.truncate(data[0], data[0].stat().st_size - 2)
    about[-1].write_text('{"frames": [3')
    with pytest.raises(UserError, match=r"truncated or damaged: .* \(2 of \d+ shards\); delete these") as caught:
        latents_of(clips, tmp_path)
    assert data[0].name in str(caught.value) and data[-1].name in str(caught.value)
    data[0].unlink()
    data[-1].unlink()
    encoded.clear()
    assert equal(latents_of(clips, tmp_path), first) and 0 < len(encoded) < 24


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_poisoned_latents_are_refused_by_shard_in_one_line(tmp_path, clips, encoded, workers, poison):
    data = LatentData(str(clips), "tiny", str(tmp_path), workers=workers, window_frames=2)
    data.setup("fit")
    for path in tmp_path.rglob("*.f16"):
        np.memmap(path, np.float16, "r+")[:] = poison
    for batches in (data.train_dataloader(), data.val_dataloader()):
        with pytest.raises(UserError, match=r"\.f16: NaN or infinite latents; delete it and run again") as caught:
            next(iter(batches))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [None, 0, 100, 2 * 128 * 30])
def test_shards_cut_off_after_setup_are_refused(tmp_path, clips, encoded, size):
    data = LatentData(str(clips), "tiny", str(tmp_path), window_frames=2)
    data.setup("fit")
    for path in tmp_path.rglob("*.f16"):
        path.unlink() if size is None else os.truncate(path, size)
    with pytest.raises(UserError, match=r"\.f16: .*truncated; delete it and run again"):
        list(zip(data.train_dataloader(), range(1000), strict=False))


def test_windows_are_the_frames_in_order(tmp_path):
    data = LatentData(str(EXAMPLES), "tiny", str(tmp_path), window_frames=23)
    data.setup("fit")
    windows = data.datasets["train"]
    parts = []
    for shard, start, frames in windows.latents.spans[windows.chosen]:
        parts.append(torch.from_numpy(windows.latents.shard(shard)[start : start + frames].copy()))
    joined = torch.cat([windows[i]["z"] for i in range(len(windows))], dim=1)
    assert torch.equal(joined, torch.cat(parts).float().transpose(0, 1)[:, : joined.shape[1]])
