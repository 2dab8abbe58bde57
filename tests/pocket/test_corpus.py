"""The corpus of two pools: every container is read, each file is decoded once, and a stopped build goes on."""

import csv
import struct
import zipfile

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from pocket import containers, corpus
from pocket.corpus import Corpus, clean, pool, split_of

RATE = 22050
TONE = (0.4 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)
PCM = np.round(TONE * 32767).astype("<i2")


def wav_bytes(path):
    soundfile.write(path, TONE, RATE, subtype="PCM_16")
    return path.read_bytes()


def soundfont(samples: list[np.ndarray]) -> bytes:
    """The chunks of a SoundFont that are read: the samples behind each other, then a header of 46 bytes for each."""
    body, headers, position = b"", b"", 0
    for data in samples:
        body += data.tobytes()
        headers += b"name".ljust(20, b"\0") + struct.pack("<5I", position, position + len(data), 0, 0, RATE) + bytes(6)
        position += len(data)
    return b"RIFF....sfbk" + b"LIST....sdtasmpl" + struct.pack("<I", len(body)) + body + (
        b"LIST....pdtashdr" + struct.pack("<I", len(headers)) + headers
    )  # fmt: skip


def gravis(samples: list[np.ndarray], mode: int) -> bytes:
    data = bytes(239)
    for sample in samples:
        header = bytearray(96)
        header[8:12] = struct.pack("<I", sample.nbytes)
        header[20:22] = struct.pack("<H", RATE)
        header[55] = mode
        data += bytes(header) + sample.tobytes()
    return data


@pytest.fixture
def packages(tmp_path):
    """One package with a recording in each form."""
    folder = tmp_path / "packages" / "some.pkg-1"
    folder.mkdir(parents=True)
    wav = wav_bytes(folder / "a.wav")
    with zipfile.ZipFile(folder / "b.pk3", "w") as archive:
        archive.writestr("music/x.wav", wav)
    (folder / "c.sf2").write_bytes(soundfont([PCM[:100], PCM]))
    (folder / "d.pat").write_bytes(gravis([PCM[:50], PCM], mode=1))
    name = b"\x05title"
    (folder / "e.cat").write_bytes(struct.pack("<II", 8, len(wav)) + name + wav + b"\x05e.wav")
    return folder.parent


ENTRIES = {"a.wav": "", "b.pk3": "music/x.wav", "c.sf2": "1", "d.pat": "1", "e.cat": "0"}


@pytest.mark.parametrize("name", ENTRIES)
def test_every_container_gives_the_same_recording(packages, name):
    audio, rate = containers.read_recording(packages / "some.pkg-1" / name, ENTRIES[name])
    assert rate == RATE and audio.dtype == np.float32 and np.abs(audio - TONE).max() < 1e-4


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_gravis_patches_have_8_or_16_bits_with_or_without_sign(mode):
    wide, unsigned = mode & 1, mode & 2
    scale = 32767 if wide else 127
    values = np.round(TONE * scale) + (scale + 1 if unsigned else 0)
    data = values.astype(("u" if unsigned else "i") + ("2" if wide else "1"))
    audio, _ = containers.read_gravis_patch(gravis([data], mode), 0)
    assert np.abs(audio - TONE).max() < (1e-4 if wide else 2e-2)


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.3, 0.3), st.integers(0, 4000), st.integers(0, 4000))
def test_offset_and_silence_go_and_the_sound_stays(offset, before, after):
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    cleaned = clean(np.pad(tone, (before, after)) + offset)
    assert abs(cleaned.mean()) < 0.02 and 15000 < len(cleaned) < 16000 + 8000
    middle = cleaned[len(cleaned) // 2 - 2000 : len(cleaned) // 2 + 2000]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.4 / np.sqrt(2), rel=0.05)


def test_silence_alone_and_very_short_clips_are_left_as_they_are():
    assert len(clean(np.zeros(5000, np.float32))) == 5000 and len(clean(np.ones(10, np.float32))) == 10


def test_pools_do_not_share_clips_and_the_split_is_by_file_and_entry():
    rows = pool()
    keys = [(r["package"], r["path"], r["entry"], r["start"]) for r in rows]
    assert len(set(keys)) == len(keys) == 3032 + 16907
    files = {(r["package"], r["path"], r["entry"]): split_of(r, set()) for r in rows}
    for row in rows:
        assert split_of(row, set()) == files[row["package"], row["path"], row["entry"]]
    fonts = [split for (_, path, _), split in files.items() if path.endswith("FluidR3_GM.sf2")]
    assert {"train", "val"} == set(fonts)
    share = sum(split == "val" for split in files.values()) / len(files)
    assert share == pytest.approx(1 / 16, abs=0.01)


def test_a_build_decodes_each_file_once_and_goes_on_where_it_was_stopped(packages, tmp_path, monkeypatch, capsys):
    columns = ["kind", "package", "path", "entry", "start", "duration", "sample_rate", "caption", "licence"]
    rows = [
        ["music", "some.pkg-1", name, entry, start, "0.4", str(RATE), f"{name} from {start}", "CC0"]
        for name, entry in ENTRIES.items()
        for start in ("0.00", "0.50")
    ]
    for name, part in (("first", rows[:4]), ("wide", rows[4:])):
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([columns, *part])
    monkeypatch.setattr(corpus, "POOLS", {name: tmp_path / f"{name}.csv" for name in ("first", "wide")})
    monkeypatch.setattr(corpus, "fetch", lambda names, folder: None)
    calls = []
    reader = corpus.read_recording
    monkeypatch.setattr(corpus, "read_recording", lambda *args: calls.append(args) or reader(*args))
    out = tmp_path / "corpus"
    (out / "parts").mkdir(parents=True)
    numbered = list(enumerate(corpus.pool()))
    corpus._build_part((numbered, packages, out / "parts" / "some.pkg-1"))
    assert len(calls) == len(ENTRIES)
    corpus.build(out, packages, processes=1)  # the one part is finished: nothing is decoded again
    assert len(calls) == len(ENTRIES) and not (out / "parts").exists()
    built = Corpus(out)
    assert [clip.caption for clip in built.clips] == [row[7] for row in rows]  # in the order of the pools
    assert [clip.pool for clip in built.clips] == ["first"] * 4 + ["wide"] * 6
    assert len(built.of("train", pool="wide")) + len(built.of("val", pool="wide")) == 6
    for clip in built.clips:
        audio = built.audio(clip)
        assert 0.3 < np.abs(audio).max() < 0.5 and len(audio) == pytest.approx(6400, abs=640)
    assert "h in" in capsys.readouterr().out
