"""The corpus as small files: what is measured stays the same, what is learned nearly so, and the sizes are kept."""

import zipfile

import numpy as np
import pytest
import torch

from ddcm.audio.mel import log_mel, mel_error_db
from ddcm.errors import UserError
from pocket import archive
from pocket.batches import validation
from tests.helpers.pocket_corpus import examples_as_corpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def corpus(folder):
    return examples_as_corpus(folder)


def test_there_and_back_in_one_file_or_in_two(corpus, folder, tmp_path):
    half = archive.pack(corpus, folder, [tmp_path / "whole.zip"], [1.0])
    size = (tmp_path / "whole.zip").stat().st_size / 1e6
    for files in ([tmp_path / "a.zip"], archive.number_files(tmp_path / "b.zip", 2)):
        seconds = archive.pack(corpus, folder, files, [1.0] if len(files) == 1 else [size - 0.05, 1.0])
        assert seconds == half == pytest.approx(sum(clip.length for clip in corpus.clips) / 16000)
        again = archive.unpack(files, tmp_path / f"unpacked{len(files)}")
        for (clip, audio), (same, other) in zip(validation(corpus, 1.28, 4), validation(again, 1.28, 4), strict=True):
            assert (clip.kind, clip.caption, clip.path) == (same.kind, same.caption, same.path)
            assert np.array_equal(audio, other)
        decoded, errors = {clip.path: again.audio(clip) for clip in again.of("train")}, []
        for clip in corpus.of("train"):
            pair = np.stack([corpus.audio(clip), decoded.pop(clip.path)])
            mels = log_mel(torch.from_numpy(pair[:, : pair.shape[1] // 160 * 160]))
            errors.append(mel_error_db(mels[0], mels[1]))
        assert not decoded and min(errors) > 0 and np.mean(errors) < 1.5


def test_a_small_file_has_all_validation_clips_and_what_fits(corpus, folder, tmp_path):
    full, file = tmp_path / "full.zip", tmp_path / "small.zip"
    archive.pack(corpus, folder, [full], [1.0])
    limit = full.stat().st_size / 1e6 - 0.02
    archive.pack(corpus, folder, [file], [limit])
    assert file.stat().st_size <= 1e6 * limit
    small = archive.unpack([file], tmp_path / "unpacked")
    assert len(small.of("val")) == len(corpus.of("val")) and len(small.of("train")) < len(corpus.of("train"))
    with pytest.raises(UserError, match="validation clips alone"):
        archive.pack(corpus, folder, [tmp_path / "none.zip"], [0.01])
    assert not (tmp_path / "none.zip").exists()


def test_training_clips_follow_the_kind_with_the_fewest_samples(corpus):
    kinds = [clip.kind for clip in archive.order_clips(corpus.of("train"), 16000)]
    assert set(kinds[:4]) == {"speech", "music", "percussion", "effects"}


def test_clips_of_a_caption_come_first_and_without_loss(corpus, folder, tmp_path):
    archive.pack(corpus, folder, [tmp_path / "notes.zip"], [1.0], lossless_captions="percussion: drum")
    again = archive.unpack([tmp_path / "notes.zip"], tmp_path / "unpacked").of("train")
    assert [clip.kind for clip in again[:2]] == ["percussion"] * 2 and len(again) == len(corpus.of("train"))
    unpacked = archive.Corpus(tmp_path / "unpacked")
    before = {clip.path: corpus.audio(clip) for clip in corpus.of("train")}
    same = {clip.kind for clip in again if np.array_equal(unpacked.audio(clip), before[clip.path])}
    assert same == {"percussion"}


def test_what_cannot_be_unpacked_is_an_error_in_one_line(corpus, folder, tmp_path):
    file = tmp_path / "corpus.zip"
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be unpacked"):
        archive.unpack([file], tmp_path / "a")
    archive.pack(corpus, folder, [file], [1.0])
    with zipfile.ZipFile(file) as good:
        index, stream = good.read("index.csv").decode(), good.read("0")
    first, row, *_ = index.splitlines()
    for broken, match in (
        (row.replace(row.split(",")[5], "7", 1), "samples instead of"),
        ("0,speech", "cannot be unpacked"),
        ("0,speech,x,val,zero,1,x,first", "cannot be unpacked"),
    ):
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as bad:
            bad.writestr("0", stream)
            bad.writestr("index.csv", "\n".join([first, broken]))
        with pytest.raises(UserError, match=match):
            archive.unpack([tmp_path / "bad.zip"], tmp_path / "a")
    assert not (tmp_path / "a" / "audio.i16").exists() and not (tmp_path / "a" / "index.csv").exists()
    archive.unpack([file], tmp_path / "a")
    with pytest.raises(UserError, match="has a corpus already"):
        archive.unpack([file], tmp_path / "a")
