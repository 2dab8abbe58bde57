"""The corpus as one small file: what is measured stays the same, what is learned nearly so, and the size is kept."""

import zipfile

import numpy as np
import pytest
import torch

from ddcm.audio.mel import LN_TO_DB, log_mel
from ddcm.errors import UserError
from pocket import archive
from pocket.batches import validation
from tests.helpers.pocket_corpus import examples_as_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return examples_as_corpus(tmp_path_factory.mktemp("corpus"))


def test_there_and_back(corpus, tmp_path):
    file = tmp_path / "corpus.zip"
    seconds = archive.pack(corpus, file, megabytes=1)
    again = archive.unpack(file, tmp_path / "unpacked")
    assert seconds == pytest.approx(sum(clip.length for clip in corpus.clips) / 16000)
    for (clip, audio), (same, other) in zip(validation(corpus, 1.28, 4), validation(again, 1.28, 4), strict=True):
        assert (clip.kind, clip.caption, clip.path) == (same.kind, same.caption, same.path)
        assert np.array_equal(audio, other)
    theirs, errors = {clip.path: again.audio(clip) for clip in again.of("train")}, []
    for clip in corpus.of("train"):
        pair = np.stack([corpus.audio(clip), theirs.pop(clip.path)])
        mels = log_mel(torch.from_numpy(pair[:, : pair.shape[1] // 160 * 160]))
        errors.append(float((mels[0] - mels[1]).abs().mean()) * LN_TO_DB)
    assert not theirs and min(errors) > 0 and np.mean(errors) < 1.5


def test_a_small_file_has_some_of_every_kind(corpus, tmp_path):
    full, file = tmp_path / "full.zip", tmp_path / "small.zip"
    archive.pack(corpus, full, megabytes=1)
    limit = full.stat().st_size / 1e6 - 0.02
    archive.pack(corpus, file, megabytes=limit)
    assert file.stat().st_size <= 1e6 * limit
    small = archive.unpack(file, tmp_path / "unpacked")
    assert len(small.of("val")) == len(corpus.of("val")) and len(small.of("train")) < len(corpus.of("train"))
    assert {clip.kind for clip in small.of("train")} >= {"music", "percussion"}
    with pytest.raises(UserError, match="validation clips alone"):
        archive.pack(corpus, tmp_path / "none.zip", megabytes=0.01)
    assert not (tmp_path / "none.zip").exists()


def test_what_cannot_be_unpacked_is_said(corpus, tmp_path):
    file = tmp_path / "corpus.zip"
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be unpacked"):
        archive.unpack(file, tmp_path / "a")
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("0", archive.encoded(np.zeros(1600, np.float32), lossless=True))
        zipped.writestr("index.csv", "kind,caption,split,offset,length,path\nspeech,x,val,0,1601,x\n")
    with pytest.raises(UserError, match="clip 0 has 1600 samples instead of 1601"):
        archive.unpack(file, tmp_path / "a")
    assert not (tmp_path / "a" / "audio.i16").exists() and not (tmp_path / "a" / "index.csv").exists()
    archive.pack(corpus, file, megabytes=1)
    archive.unpack(file, tmp_path / "a")
    with pytest.raises(UserError, match="has a corpus already"):
        archive.unpack(file, tmp_path / "a")
