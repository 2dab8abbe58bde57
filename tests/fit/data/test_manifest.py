"""Which files are fitted on, who holds which back, and which of them share a shard."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("lightning")

from ddcm.errors import UserError
from ddcm.fit.data.latent_data import LatentData
from ddcm.fit.data.manifest import Entry, read_manifest, split_entries
from ddcm.fit.data.shards import SHARD_BYTES, plan_shards
from tests.conftest import EXAMPLES


def test_manifest_with_splits(tmp_path):
    rows = ["path,split"] + [f"{path},{'val' if path.stem == 'bird' else 'train'}" for path in EXAMPLES.glob("*.flac")]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    data = LatentData(str(tmp_path / "list.csv"), "tiny", str(tmp_path), window_frames=16)
    data.setup("fit")
    stems = {split: {windows.entries[n].path.stem for n in windows.chosen} for split, windows in data.datasets.items()}
    assert stems["val"] == {"bird"}
    assert stems["train"] == {
        "ambience", "drumloop", "drumroll", "melodic", "speech"
    }  # fmt: skip
    item = data.datasets["val"][1]
    assert item["z"].shape == (8, 16, 16) and item["z"].dtype == torch.float32 and item["path"].endswith("bird.flac")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"path,split\na.wav,dev\n", "line 2: split 'dev' is none of train, val, test"),
        (b"path,split\na.wav,train\n,val\n", "line 3: no path"),
        (b"split,path\ntrain\n", "line 2: no path"),
        (b"path\nrain, heavy.wav\n", "line 2: more cells than columns; quote"),
        (b"path,split\na.wav,train\nb.wav,val\na.wav,val\n", "line 4: a.wav is also on line 2"),
        (b"file\na.wav\n", "has no column path"),
        (b"", "has no column path"),
        (b"path\n", "lists no files"),
        (b"path\n\xff\xfe.wav\n", "is not a CSV in UTF-8"),
        (b"path" + b",x" * 1_000_000 + b"\n", "a line of more than 1048576 characters"),
    ],
)
def test_bad_manifests_are_one_line(tmp_path, content, message):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_manifest(tmp_path / "list.csv")
    assert "\n" not in str(caught.value) and str(tmp_path / "list.csv") in str(caught.value)


def test_manifests_of_spreadsheets_are_read(tmp_path):
    (tmp_path / "list.csv").write_bytes('\ufeffpath,split\r\n"b, c.wav",val\r\n a.wav , train\r\n'.encode())
    entries = read_manifest(tmp_path / "list.csv")
    assert [(entry.name, entry.split) for entry in entries] == [("a.wav", "train"), ("b, c.wav", "val")]


@pytest.mark.parametrize("count", [1, 2, 6, 50])
def test_every_split_has_a_file(count, tmp_path):
    for index in range(count):
        (tmp_path / f"{index}.wav").touch()
    splits = split_entries(read_manifest(tmp_path))
    assert splits["train"] and splits["val"]
    if count > 1:
        assert sorted(splits["train"] + splits["val"]) == list(range(count))


# Shards.


def planned(names, size=1000) -> tuple[list[str], np.ndarray]:
    entries = [Entry(Path("/absent") / name, name) for name in sorted(names)]
    status = np.array([[size, int(hashlib.md5(name.encode()).hexdigest()[:8], 16)] for name in sorted(names)])
    plan = plan_shards(entries, status.reshape(-1, 2))
    return plan.names, plan.bounds


NAMES = st.sets(st.text("abcdef/0123456789é ", min_size=1, max_size=12), min_size=1, max_size=400)


@settings(deadline=None, max_examples=50)
@given(NAMES, st.integers(1, SHARD_BYTES))
def test_shards_are_runs_of_all_files_within_the_limit(names, size):
    shards, bounds = planned(names, size)
    assert bounds[0] == 0 and bounds[-1] == len(names) and (np.diff(bounds) > 0).all()
    assert len(set(shards)) == len(shards) == len(bounds) - 1
    assert all(count == 1 or count * size <= SHARD_BYTES for count in np.diff(bounds))


@settings(deadline=None, max_examples=50)
@given(NAMES, st.text("xyz0123456789", min_size=1, max_size=12))
def test_a_file_more_or_less_concerns_one_shard(names, added):
    with_it, without = (set(planned(chosen)[0]) for chosen in (names | {added}, names - {added} or {"else"}))
    assert len(without - with_it) <= 1 and len(with_it - without) <= 2  # two where its name ends a shard
    assert with_it != without
