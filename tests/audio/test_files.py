"""Reading, levelling and writing; every kind of bad input gets its line."""

import io
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ddcm.audio.decode import _refuse_cut
from ddcm.audio.files import audio_writer, encode_audio, read_audio, resample, write_audio
from ddcm.audio.level import normalise_level
from ddcm.audio.search import find_audio
from ddcm.errors import UserError
from tests.conftest import EXAMPLES


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return np.repeat(0.3 * np.sin(2 * np.pi * 440 * t)[:, None], channels, axis=1)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_any_rate_and_channels(tmp_path, rate, channels):
    soundfile.write(tmp_path / "a.wav", tone(0.5, rate, channels), rate)
    audio = read_audio(tmp_path / "a.wav")
    assert audio.shape == (round(round(0.5 * rate) * 16000 / rate),)
    middle = audio[2000:6000].numpy()
    wanted = tone(0.5, 16000)[2000:6000, 0]
    assert np.abs(middle - wanted).max() < 5e-3


@pytest.mark.parametrize("kind", [("wav", "PCM_U8"), ("wav", "PCM_24"), ("wav", "DOUBLE"), ("flac", "PCM_24"),
                                  ("ogg", "VORBIS"), ("mp3", "MPEG_LAYER_III"), ("aiff", "PCM_16")])  # fmt: skip
def test_formats(tmp_path, kind):
    suffix, subtype = kind
    soundfile.write(tmp_path / f"a.{suffix}", tone(0.5, 16000), 16000, subtype=subtype)
    audio = read_audio(tmp_path / f"a.{suffix}")
    assert len(audio) == 8000 and 0.28 < audio.abs().max() < 0.33


def test_one_sample_of_high_rate_is_one_sample(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0.5]), 192000)
    assert read_audio(tmp_path / "a.wav").shape == (1,)


def broken_files(folder):
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is not audio\n" * 20)
    soundfile.write(folder / "none.wav", np.zeros(0), 16000)
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan] * 800), 16000, subtype="FLOAT")
    soundfile.write(folder / "inf.wav", np.array([0.0, np.inf] * 800), 16000, subtype="FLOAT")
    for suffix in ("wav", "flac"):
        soundfile.write(folder / f"whole.{suffix}", np.random.default_rng(0).normal(0, 0.1, 48000), 16000)
        data = (folder / f"whole.{suffix}").read_bytes()
        (folder / f"cut.{suffix}").write_bytes(data[: len(data) // 2])
        (folder / f"whole.{suffix}").unlink()


@pytest.mark.parametrize(
    "name, says",
    [("absent.wav", "no such file"), ("empty.wav", "empty"), ("text.wav", "not readable"), ("none.wav", "no samples"),
     ("nan.wav", "NaN"), ("inf.wav", "infinite"), ("cut.wav", "truncated"), ("cut.flac", "truncated")],
)  # fmt: skip
def test_bad_files_are_named_in_one_line(tmp_path, name, says):
    broken_files(tmp_path)
    with pytest.raises(UserError, match=says) as caught:
        read_audio(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_streamed_wavs_without_a_length_are_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(0.5, 16000), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(data)
    assert len(read_audio(tmp_path / "a.wav")) == 8000


@pytest.mark.parametrize("size, cut", [("0xFFFF", True), ("9000", True), ("0x10", False), ("0", False), ("?", False)])
def test_what_libsndfile_says_of_a_length(size, cut):
    """In its log, in one base or the other, and at times not as a number."""
    said = []
    try:
        _refuse_cut(Path("a.wav"), f"File : a.wav\n data : {size} (should be 1400)\n", 1, b"", 700)
    except UserError as error:
        said.append(str(error))
    assert bool(said) == cut and all("1400 of" in line for line in said)


def test_level_and_back():
    audio = torch.randn(1000) * 0.01 + 0.2
    levelled, moved = normalise_level(audio)
    assert abs(float(levelled.mean())) < 1e-6 and float(levelled.abs().max()) == pytest.approx(0.5)
    assert torch.allclose(moved.undo(levelled), audio, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_silence_and_dc_are_not_brought_up(value):
    levelled, moved = normalise_level(torch.full((1000,), value))
    assert levelled.abs().max() < 1e-6 and moved.gain == 1.0


def test_find_audio(tmp_path):
    for name in ("b.wav", "sub/a.FLAC", "notes.txt", ".hidden.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [str(name) for _, name in find_audio([tmp_path])] == ["b.wav", "sub/a.FLAC"]
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="no audio in"):
        find_audio([tmp_path / "bare"])


@pytest.mark.parametrize("kind, subtype", [("wav", "FLOAT"), ("flac", "PCM_24")])
def test_what_is_written(tmp_path, kind, subtype):
    """Scaled to full scale, whole, the same bytes each time; a wav holds the samples themselves."""
    path = tmp_path / "sub" / f"a.{kind}"
    write_audio(path, torch.tensor([0.0, 2.0, -2.0, 0.5]), 16000)
    info = soundfile.info(path)
    assert (info.subtype, info.samplerate, info.frames, info.channels) == (subtype, 16000, 4, 1)
    assert [path.name for path in path.parent.iterdir()] == [path.name]
    assert read_audio(path).tolist() == pytest.approx([0, 1, -1, 0.25], abs=2**-23)
    audio = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 0.01
    write_audio(path, audio, 16000)
    assert path.read_bytes() == encode_audio(audio, 16000, kind)
    error = (read_audio(path) - audio).abs().max()
    assert error == 0 if kind == "wav" else 0 < error <= 2**-23


@pytest.mark.parametrize("samples", [0, 1, 7])
def test_the_header_of_a_wav_is_libsndfiles(samples):
    """But for its chunk of peaks, which holds the time of day."""
    theirs, ours = io.BytesIO(), encode_audio(torch.full((samples,), 0.5), 44100)
    soundfile.write(theirs, np.full(samples, 0.5, np.float32), 44100, format="WAV", subtype="FLOAT")
    with soundfile.SoundFile(io.BytesIO(ours)) as file:
        assert "Warning" not in file.extra_info and "should be" not in file.extra_info
        assert file.frames == samples and (file.read() == 0.5).all()
    theirs, (fmt, fact) = theirs.getvalue(), (ours[20:36], ours[38:50])
    assert fmt == theirs[20:36] and fact in theirs and ours[-4 * samples - 8 :] == theirs[-4 * samples - 8 :]


@pytest.mark.parametrize("name", ["a.mp3", "a", "a.wav.part"])
def test_other_kinds_are_not_written(tmp_path, name):
    with pytest.raises(UserError, match=r"\.wav or \.flac"):
        write_audio(tmp_path / name, torch.zeros(4), 16000)
    with pytest.raises(UserError, match=r"\.wav or \.flac"), audio_writer(tmp_path / name, 16000):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_audio(tmp_path / "a.wav", torch.zeros(4), "not a rate")
    assert list(tmp_path.iterdir()) == []


def test_resample_keeps_what_needs_no_change():
    audio = np.random.default_rng(0).normal(size=100).astype(np.float32)
    assert resample(audio, 16000, 16000) is audio
    assert len(list(EXAMPLES.glob("*.flac"))) == 6


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".m4a"])
def test_what_is_too_long_is_refused(tmp_path, suffix):
    path = tmp_path / f"long{suffix}"
    if suffix == ".m4a":
        if shutil.which("ffmpeg") is None:
            pytest.skip("no ffmpeg installed")
        source = tmp_path / "long.wav"
        write_audio(source, torch.zeros(48000), 16000)
        subprocess.run(["ffmpeg", "-loglevel", "quiet", "-i", source, path], check=True)
    else:
        write_audio(path, torch.zeros(48000), 16000)
    assert len(read_audio(path, most_s=3.5)) >= 48000
    with pytest.raises(UserError, match="longer than 2 s"):
        read_audio(path, most_s=2)


def names(folder) -> list[str]:
    return [name.as_posix() for _, name in find_audio([folder])]


def test_linked_folders_are_searched(tmp_path):
    """Each folder once: not in a circle, and by its real name before that of a link."""
    outside, data = tmp_path / "disk", tmp_path / "data"
    for path in (outside / "deep" / "a.wav", data / "own" / "b.wav", data / "z" / "c.wav"):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    (data / "link").symlink_to(outside)
    (data / "own" / "circle").symlink_to(data)
    (outside / "deep" / "up").symlink_to(outside)
    (data / "a-link-to-z").symlink_to(data / "z")
    (data / "one.wav").symlink_to(outside / "deep" / "a.wav")
    assert names(data) == ["link/deep/a.wav", "one.wav", "own/b.wav", "z/c.wav"]
    (tmp_path / "root").symlink_to(data)
    assert names(tmp_path / "root") == names(data)
    only = tmp_path / "only"
    only.mkdir()
    (only / "link").symlink_to(outside)
    assert names(only) == ["link/deep/a.wav"]


@pytest.mark.parametrize(
    "suffix", ["webm", "mp4", "mka", "aifc", "snd", "sph", "mp2", "M4B", "voc", "wv", "amr", "ac3", "mov"]
)
def test_every_kind_that_is_read_is_found(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(b"x")
    assert names(tmp_path) == [f"a.{suffix}"]


def test_what_is_left_out_is_named(tmp_path, caplog, monkeypatch):
    for name in ("a.wav", "song.mid", "notes.txt", ".hidden.wav", "cover.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "gone.flac").symlink_to(tmp_path / "nowhere.flac")
    (tmp_path / "locked").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert names(tmp_path) == ["a.wav"]
    (record,) = caplog.records
    assert all(name in record.getMessage() for name in ("song.mid", "gone.flac", "locked"))
    assert not any(name in record.getMessage() for name in ("notes.txt", "hidden", "cover"))


@pytest.mark.parametrize("kind", ["matroska", "mp4", "webm -c:a libopus", "aiff", "au", "mp2"])
def test_what_is_found_by_its_suffix_is_read(tmp_path, kind):
    """Mixed in a folder with a wav: both are found and read."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg installed")
    suffix = {"matroska": "mka", "webm -c:a libopus": "webm", "aiff": "aifc", "au": "snd"}.get(kind, kind)
    write_audio(tmp_path / "a.wav", torch.from_numpy(tone(0.5, 16000)[:, 0]).float(), 16000)
    command = f"ffmpeg -v error -i {tmp_path}/a.wav -f {kind} {tmp_path}/b.{suffix}"
    subprocess.run(command.split(), check=True)
    found = find_audio([tmp_path])
    assert [path.suffix for path, _ in found] == [".wav", f".{suffix}"]
    assert all(abs(len(read_audio(path)) - 8000) < 1600 for path, _ in found)
