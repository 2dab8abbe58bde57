"""Every file is read to the end of what is there, whatever its header declares; one that is cut off is refused."""

import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from ddcm.audio.decode import duration_s
from ddcm.audio.files import read_audio
from ddcm.cli.batch import plan_jobs
from ddcm.errors import UserError

RATE = 16000
SAMPLES = np.cumsum(np.random.default_rng(0).normal(0, 0.01, (24000, 2)), axis=0)
SAMPLES -= SAMPLES.mean(axis=0)
SAMPLES[12000:] *= 0.1  # quieter: a variable bitrate changes here
SAMPLES *= 0.5 / np.abs(SAMPLES).max()
UNKNOWN = [
    0,
    0xFFFFFFFF,
    0xFFFFFFFE,
    0xFFFFFFDB,
    0x7FFFFFFF,
    0x7FFFFFFE,
    0x7FFFFFDB,
    0x80000000,
    0x7FFFF000,
    0x7F000000,
]
FORMATS = {
    "wav": ("WAV", "PCM_16"), "24.wav": ("WAV", "PCM_24"), "float.wav": ("WAV", "FLOAT"), "x.wav": ("WAVEX", "PCM_16"),
    "rf64": ("RF64", "PCM_16"), "w64": ("W64", "PCM_16"), "aiff": ("AIFF", "PCM_16"), "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"), "sph": ("NIST", "PCM_16"), "voc": ("VOC", "PCM_16"),
}  # fmt: skip
STORED = {name: (name.upper(), "PCM_16") for name in ("pvf", "paf", "ircam", "avr", "mat4", "mat5", "svx")}

ID3, TAG = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10), b"TAG" + bytes(125)
APE = b"APETAGEX" + struct.pack("<4I", 2000, 72, 1, 0xA0000000) + bytes(8 + 72)


def write(path, name, samples=SAMPLES, rate=RATE, **options):
    kind, subtype = (FORMATS | STORED)[name]
    soundfile.write(path, samples, rate, subtype=subtype, format=kind, **options)
    return path.read_bytes()


def without_xing(data: bytes) -> bytes:
    """An mp3 without its first frame, which declares the length."""
    assert b"Xing" in data[:200] or b"Info" in data[:200]
    return data[data.index(data[:2], 100) :]


def of_unknown_length(flac: bytes) -> bytes:
    """A FLAC as it comes out of a pipe: no number of samples, no checksum."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(20) + flac[42:]


def check(path, expected, tolerance=0, compare=True, packet_s=0.0):
    """``tolerance`` in samples; ``packet_s``: the duration is known to a packet of ffmpeg's."""
    audio = read_audio(path).numpy()
    assert abs(len(audio) - len(expected)) <= tolerance
    assert abs(duration_s(path) - len(expected) / RATE) <= tolerance / RATE + packet_s + 1e-3
    if compare:
        size = min(len(audio), len(expected))
        assert np.abs(audio[:size] - expected[:size]).max() < 1e-3


MONO = SAMPLES.mean(axis=1).astype(np.float32)


@pytest.mark.parametrize("outer", ["right", "same", "unknown"])
@pytest.mark.parametrize("size", UNKNOWN)
@pytest.mark.parametrize("name", ["wav", "24.wav", "float.wav", "x.wav"])
def test_wavs_without_a_length(tmp_path, name, size, outer):
    data = bytearray(write(tmp_path / "a.wav", name))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    if outer != "right":
        data[4:8] = struct.pack("<I", min(size + at - 4, 0xFFFFFFFF) if outer == "same" else 0)
    (tmp_path / "a.wav").write_bytes(data)
    check(tmp_path / "a.wav", MONO)


@pytest.mark.parametrize("more", [1, 2, 7, 44, 1000, 20_000])
@pytest.mark.parametrize("name, field", [("wav", b"data"), ("24.wav", b"data"), ("aiff", b"SSND")])
def test_a_length_that_is_a_little_too_large(tmp_path, name, field, more):
    """The outer chunk ends with the file, so nothing is missing."""
    data = bytearray(write(tmp_path / "a", name))
    at, order = data.index(field) + 4, "big" if name == "aiff" else "little"
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], order) + more).to_bytes(4, order)
    (tmp_path / "a").write_bytes(data)
    check(tmp_path / "a", MONO)


@pytest.mark.parametrize("size", [1, 2, 400, 30_000])
def test_samples_behind_the_declared_end(tmp_path, size):
    """The recorder was killed, or 4 GiB overflowed. Padding and further chunks are not taken for samples."""
    data = bytearray(write(tmp_path / "a.wav", "wav"))
    data[40:44] = struct.pack("<I", size)
    (tmp_path / "a.wav").write_bytes(data)
    check(tmp_path / "a.wav", MONO)


@pytest.mark.parametrize("rest", [bytes(9000), b"LIST" + struct.pack("<I", 5000) + b"INFO" + bytes(range(200)) * 25,
                                  b"ID3\x04" + b"\x01\xfe" * 3000, b"\x07" * 9])  # fmt: skip
def test_what_follows_the_samples_is_no_sound(tmp_path, rest):
    data = write(tmp_path / "a.wav", "wav")
    (tmp_path / "a.wav").write_bytes(data + rest)
    check(tmp_path / "a.wav", MONO)


@pytest.mark.parametrize(
    "name, at, value", [("aiff", b"SSND", 0), ("aiff", b"SSND", 0x7F000008), ("au", b"\0\0\0\x18", -1)]
)
def test_other_headers_without_a_length(tmp_path, name, at, value):
    data = bytearray(write(tmp_path / "a", name))
    place = data.index(at) + 4
    data[place : place + 4] = (value % (1 << 32)).to_bytes(4, "big")
    (tmp_path / "a").write_bytes(data)
    check(tmp_path / "a", MONO)


def test_rf64_without_a_length(tmp_path):
    data = bytearray(write(tmp_path / "a.rf64", "rf64"))
    data[20:44] = bytes(24)
    (tmp_path / "a.rf64").write_bytes(data)
    check(tmp_path / "a.rf64", MONO)


def test_flac_out_of_a_pipe(tmp_path):
    data = of_unknown_length(write(tmp_path / "a.flac", "flac"))
    (tmp_path / "a.flac").write_bytes(data)
    check(tmp_path / "a.flac", MONO)
    with pytest.raises(UserError, match=r"a.flac: longer than 1 s"):
        read_audio(tmp_path / "a.flac", most_s=1)
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="damaged or truncated"):
        read_audio(tmp_path / "cut.flac")


def test_hostile_tags_and_counts_end(tmp_path):
    """A tag of no length, and more recordings than anybody has."""
    (tmp_path / "a.mp3").write_bytes(b"APETAGEX" + bytes(24) + b"ID3" + bytes(90))
    with pytest.raises(UserError, match="not readable"):
        read_audio(tmp_path / "a.mp3")
    for name in ("mp3", "flac", "ogg"):
        data = write(tmp_path / f"a.{name}", name, SAMPLES[:200, :1])
        (tmp_path / f"a.{name}").write_bytes(data * 1001)
        with pytest.raises(UserError, match="more than 1000 recordings"):
            read_audio(tmp_path / f"a.{name}")


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """By format: bytes of recordings that differ in length, channels and rate, and what each is read as."""
    folder, found = tmp_path_factory.mktemp("pieces"), {}
    for name in [*(FORMATS.keys() - {"24.wav", "float.wav", "x.wav", "voc"}), *(STORED.keys() - {"svx"})]:
        for number, (frames, channels, rate) in enumerate([(3000, 2, 16000), (9000, 1, 16000), (24000, 2, 48000)]):
            path = folder / f"{number}.{name}"
            data = write(path, name, SAMPLES[:frames, :channels], rate)
            found.setdefault("ogg" if name == "opus" else name, []).append((data, read_audio(path).numpy()))
            if name == "mp3":
                path.write_bytes(b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + data + b"TAG" + bytes(125))
                found["mp3"].append((path.read_bytes(), read_audio(path).numpy()))
    return found


@given(st.data())
def test_several_recordings_one_after_another(tmp_path_factory, pieces, data):
    """Any number of them, of any rates, channels and codecs: all are read."""
    name = data.draw(st.sampled_from(sorted(pieces)))
    chosen = data.draw(st.lists(st.sampled_from(pieces[name]), min_size=1, max_size=5))
    path = tmp_path_factory.mktemp("several") / f"a.{name}"
    path.write_bytes(b"".join(content for content, _ in chosen))
    audio, expected = read_audio(path).numpy(), np.concatenate([audio for _, audio in chosen])
    assert abs(len(audio) - len(expected)) <= len(chosen)
    assert duration_s(path) == pytest.approx(len(expected) / RATE, abs=len(chosen) / RATE)
    if len(audio) == len(expected):
        assert np.sqrt(np.mean((audio - expected) ** 2)) < 0.02  # rates are resampled across their borders


@pytest.mark.parametrize("name", ["voc", "svx", "tta", "wv", "wma", "flv", "nut", "rm", "m4a", "mov"])
def test_several_of_which_only_the_first_can_be_read(tmp_path, name):
    """They are refused; one alone is not."""
    path = tmp_path / f"a.{name}"
    if name in FORMATS | STORED:
        write(path, name, SAMPLES[:, :1])
    elif shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg installed")
    else:
        write(tmp_path / "a.wav", "wav")
        codec = {"rm": ["-c:a", "ac3"], "flv": ["-c:a", "aac"]}.get(name, [])
        subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", *codec, path], check=True)
    if name not in ("voc", "svx") or shutil.which("ffmpeg"):
        assert len(read_audio(path)) == pytest.approx(len(MONO), abs=2500)
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(UserError, match="several files one after another, and only the first can be read"):
        read_audio(path)


@pytest.mark.parametrize("part", [0.3, 0.45, 0.7701, 0.99])
@pytest.mark.parametrize(
    "name", [*FORMATS, "bare.mp3", "two.flac", "two.ogg", "two.mp3", "two.wav", "two.aiff", "two.au"]
)
def test_what_is_cut_off_is_refused(tmp_path, name, part):
    data = write(tmp_path / "a", name.rpartition(".")[2] if name not in FORMATS else name)
    data = without_xing(data) if name == "bare.mp3" else data * (1 + name.startswith("two"))
    path = tmp_path / name
    path.write_bytes(data)
    read_audio(path)
    path.write_bytes(data[: round(len(data) * part)])
    with pytest.raises(UserError, match=r"truncated|not readable"):
        read_audio(path)
    assert duration_s(path) > 0


def test_shares_and_limits_use_the_same_length(tmp_path, monkeypatch):
    """The longest file of a folder is one rank's share, although its header declares nothing."""
    from ddcm.cli import batch

    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        write(folder / f"{name}.wav", "wav", SAMPLES[:9000])
    (folder / "d.flac").write_bytes(of_unknown_length(write(folder / "d.flac", "flac")))
    jobs = plan_jobs([str(folder)], str(tmp_path / "out"), False)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(batch, "read_launched_rank", lambda rank=rank: (rank, 2))
        shares.append({job.source.name for job in batch._choose_share(jobs)})
    assert {"d.flac"} in shares


PROGRAMS = {
    "ffmpeg": "ffmpeg -v error -f s16le -ar 16000 -ac 2 -i pipe:0 -f {} pipe:1",
    "sox": "sox -t raw -r 16000 -e signed -b 16 -c 2 - -t {} -",
}


PIPED = {
    "ffmpeg": ("wav", "wav -rf64 always", "w64", "aiff", "au", "caf", "flac", "ogg -c:a flac", "voc", "tta", "ogg",
               "opus", "mp3", "mp3 -q:a 5 -write_xing 0", "mp3 -b:a 64k -write_xing 0", "mp2", "adts",
               "matroska", "mpegts"),
    "sox": ("wav", "aiff", "aifc", "au", "flac", "ogg", "sph"),
}  # fmt: skip
LOSSY = ("ogg", "opus", "mp", "adts", "matroska")


@pytest.mark.parametrize("program, kind", [(program, kind) for program in PIPED for kind in PIPED[program]])
def test_what_programs_write_into_a_pipe(tmp_path, program, kind):
    if shutil.which(program) is None:
        pytest.skip(f"no {program} installed")
    raw = (SAMPLES * 32767).astype("<i2").tobytes()
    done = subprocess.run(PROGRAMS[program].format(kind).split(), input=raw, stdout=subprocess.PIPE, check=True)
    (tmp_path / "a").write_bytes(done.stdout)
    lossy = kind.startswith(LOSSY) and "flac" not in kind
    check(
        tmp_path / "a",
        MONO,
        4000 if lossy else 0,
        compare=not lossy,
        packet_s={"tta": 1.1, "ogg -c:a flac": 0.1}.get(kind, 0.0),
    )
