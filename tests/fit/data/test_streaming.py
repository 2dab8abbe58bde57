"""Packed latents: what goes in comes out, in an order that can be taken up again, from folders and URLs."""

import errno
import json
import os
import shutil
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("webdataset")

from ddcm.errors import UserError
from ddcm.fit.cli import main
from ddcm.fit.data.latent_data import LatentData
from ddcm.fit.data.pack import main as pack_main
from ddcm.fit.data.pack import pack
from ddcm.fit.data.sampler import TrainStream
from ddcm.fit.data.streaming import StreamedLatents, read_index
from ddcm.fit.module import CodebookModule
from tests.conftest import EXAMPLES, ROOT, Killed

pytestmark = pytest.mark.filterwarnings("ignore")
FRAMES = 4


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def packed(tmp_path_factory, cache) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "set"
    pack(str(EXAMPLES), str(folder), "tiny", str(cache), window_frames=FRAMES, windows_per_tar=7)
    return folder


@pytest.fixture
def copy(packed, tmp_path) -> Path:
    """To be damaged."""
    return Path(shutil.copytree(packed, tmp_path / "copy"))


def opened(root) -> StreamedLatents:
    data = StreamedLatents(str(root), "tiny", batch_size=3, workers=0)
    data.setup("fit")
    return data


def stream(root, workers: int = 0, rank: int = 0, world: int = 1, position: int = 0, seed: int = 0) -> TrainStream:
    data = StreamedLatents(str(root), "tiny", batch_size=3, workers=workers, seed=seed)
    data.setup("fit")
    stream = data.train_dataloader()
    stream.order.rank, stream.order.world = rank, world
    stream.load_state_dict({"position": position})
    return stream


def taken(batches, count: int) -> list[bytes]:
    return [next(batches)["z"].numpy().tobytes() for _ in range(count)]


def windows_of(batches) -> list[bytes]:
    return [z.numpy().tobytes() for batch in batches for z in batch["z"]]


def cached(cache: Path, split: str) -> list[bytes]:
    """The windows of a split as a fit from audio sees them."""
    data = LatentData(str(EXAMPLES), "tiny", str(cache), window_frames=FRAMES)
    data.setup("fit")
    windows = data.datasets[split]
    return [windows[index]["z"].numpy().tobytes() for index in range(len(windows))]


def test_what_is_packed_is_what_a_fit_from_audio_sees(packed, cache):
    streamed = opened(packed)
    assert windows_of(streamed.val_dataloader()) == cached(cache, "val")
    train = cached(cache, "train")
    assert len(streamed.datasets["train"]) == len(train) and len(streamed.datasets["train"].sizes) >= 16
    batches = streamed.train_dataloader()
    first = next(batches)["z"]
    assert first.shape == (3, 8, FRAMES, 16) and first.dtype == torch.float32
    got = windows_of([{"z": first}, *(next(batches) for _ in range(len(batches) - 1))])
    assert len(got) == len(train) // 3 * 3
    assert not Counter(got) - Counter(train)  # each once
    assert got != train[: len(got)]


@pytest.mark.parametrize("world, workers", [(1, 2), (2, 0), (2, 3)])
def test_readers_share_the_tar_files(packed, cache, world, workers):
    """In the first rounds no two readers meet the same window."""
    rounds = 2 * max(1, workers)
    ranks = [stream(packed, workers, rank, world) for rank in range(world)]
    seen = Counter(window for batches in ranks for window in windows_of(next(batches) for _ in range(rounds)))
    assert seen.total() == world * rounds * 3
    assert not seen - Counter(cached(cache, "train"))


@pytest.mark.parametrize("world, workers, position", [(1, 0, 1), (1, 0, 61), (1, 2, 5), (1, 3, 100), (2, 2, 33)])
def test_resumed_is_uninterrupted(packed, world, workers, position):
    for rank in range(world):
        whole = taken(stream(packed, workers, rank, world), position + 7)
        assert taken(stream(packed, workers, rank, world, position), 7) == whole[position:]
        assert taken(stream(packed, workers, rank, world, seed=1), 7) != whole[:7]


def test_resuming_does_not_read_what_lies_before(packed, monkeypatch):
    from ddcm.fit.data import streaming

    reads, original = [], streaming.read_tar
    monkeypatch.setattr(streaming, "read_tar", lambda *which: reads.append(which) or original(*which))
    next(stream(packed, position=40))
    assert len(reads) <= 2


@pytest.mark.parametrize("key", ["layout", "dealt"])  # the second is what version 0.1 writes
def test_resuming_with_other_readers_is_warned_of(packed, key):
    with pytest.warns(UserWarning, match="another order"):
        stream(packed).load_state_dict({"position": 3, key: [4, 2, 3]})


def test_a_fit_from_tar_files_that_is_killed_and_resumed(packed, tmp_path, monkeypatch):
    def fit(name, *options):
        main(
            ["fit", f"-c={ROOT}/configs/tiny.yaml", "--data", "ddcm.fit.data.StreamedLatents",
             f"--data.root={packed}", "--data.batch_size=4", f"--trainer.default_root_dir={tmp_path / name}",
             "--trainer.max_steps=12", "--trainer.val_check_interval=5", "--trainer.logger=false",
             "--trainer.enable_progress_bar=false", "--model.listen_every=0", *options]
        )  # fmt: skip
        return torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]

    def killed(self, *_):
        if self.global_step == 8:
            raise Killed

    whole = fit("whole")
    with monkeypatch.context() as patch:
        patch.setattr(CodebookModule, "on_train_batch_end", killed)
        with pytest.raises(Killed):
            fit("cut")
    cut = fit("cut", f"--ckpt_path={tmp_path / 'cut/checkpoints/last.ckpt'}")
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)
    written = (tmp_path / "cut/config.yaml").read_text()  # which repeats the run
    assert "class_path: ddcm.fit.data.StreamedLatents" in written


# Where they come from.


def test_from_a_web_server_and_from_a_command(packed):
    handler = partial(type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None}), directory=packed)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    expected = taken(stream(packed), 3)
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert taken(stream(url), 3) == expected
        with pytest.raises(UserError, match=r"absent/index\.json cannot be read"):
            read_index(f"{url}/absent")
    finally:
        server.shutdown()
    assert taken(stream(f"pipe:cat {packed}/{{}}"), 3) == expected


# What is refused.


def change(root: Path, **changes) -> None:
    index = json.loads((root / "index.json").read_text())
    (root / "index.json").write_text(json.dumps({**index, **changes}))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"latent_digest": "f" * 16}, "holds latents ffffffffffffffff, but those of tiny are"),
        ({"format": 7}, "has format 7"),
        ({"shape": [8, 16]}, "lists no windows"),
        ({"shape": "8x"}, "no index of packed latents"),
        ({"tars": {"train": {"train-0.tar": 1}}}, "no windows for train or for val"),
        ({"tars": {"train": {"train-0.tar": 1}, "val": {"../val-0.tar": 1}}}, "names a file '../val-0.tar'"),
        ({"tars": {"train": {"pipe:touch x": 1}, "val": {"val-0.tar": 1}}}, "names a file 'pipe:touch x'"),
    ],
)
def test_bad_indices_are_one_line(copy, changes, message):
    change(copy, **changes)
    with pytest.raises(UserError, match=message) as caught:
        opened(copy)
    assert "\n" not in str(caught.value)


def test_no_index_at_all(tmp_path):
    with pytest.raises(
        UserError, match=r"index\.json cannot be read \(no such file.*; python -m ddcm\.fit\.data\.pack"
    ):
        opened(tmp_path)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda path: path.unlink(), "cannot be read or is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:2048]), "truncated|cannot be read or is damaged"),
        (lambda path: path.write_bytes(b"no tar" * 1000), "cannot be read or is damaged"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"<f2", b"|O2")), "cannot be read or is damaged"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"(8, 4, 16)", b"(4, 8, 16)")), "not what its index"),
        (lambda path: path.write_bytes(poisoned(path.read_bytes())), "NaN or infinite"),
    ],
)
def test_damaged_tar_files_are_named_in_one_line(copy, damage, message):
    for path in copy.glob("*.tar"):
        damage(path)
    data = opened(copy)
    for batches in (data.train_dataloader(), data.val_dataloader()):
        with pytest.raises(UserError, match=message) as caught:
            next(iter(batches))
        assert "\n" not in str(caught.value) and ".tar" in str(caught.value)


def poisoned(content: bytes) -> bytes:
    """The first window's first numbers become NaN."""
    begin = content.index(b"\n", content.index(b"NUMPY")) + 1
    return content[:begin] + np.full(4, np.nan, np.float16).tobytes() + content[begin + 8 :]


def test_more_readers_than_tar_files(packed):
    with pytest.raises(UserError, match=r"tar files for 99 readers \(1 processes x 99 --data.workers\)"):
        stream(packed, workers=99)


def test_packing_over_something_is_one_line_and_exit_code_2(packed, capsys):
    before = sorted(path.stat().st_mtime_ns for path in packed.iterdir())
    with pytest.raises(SystemExit) as stop:
        pack_main([str(EXAMPLES), str(packed), "--backbone=tiny"])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith(f"error: {packed} exists")
    assert before == sorted(path.stat().st_mtime_ns for path in packed.iterdir())


def test_packing_onto_a_full_disk_leaves_nothing(tmp_path, cache, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(SystemExit) as stop:
        pack_main([str(EXAMPLES), str(tmp_path / "out"), "--backbone=tiny", f"--cache_dir={cache}"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and error.startswith(f"error: cannot write {tmp_path / 'out'} (no space left")
    assert not list(tmp_path.iterdir())
