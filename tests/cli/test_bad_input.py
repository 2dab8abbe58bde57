"""What is wrong, which file, what to do: in one line with exit code 2, through the command line and from Python."""

import errno
import os
import pickle
import resource
import struct
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
import torch

from ddcm.audio import files as audio
from ddcm.audio.files import read_audio
from ddcm.backbone.tiny import tiny_backbone
from ddcm.cli.main import main
from ddcm.errors import UserError
from ddcm.pipeline import DDCMPipeline, pipeline
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import save_codebook
from tests.audio.test_files import tone
from tests.conftest import EXAMPLES, made, reconstruct_fails

TINY = ["--backbone", "tiny", "--quantizer", "none"]


@pytest.fixture(autouse=True)
def _one_backbone(monkeypatch, tiny):
    """``--backbone tiny`` without making it anew for every command."""
    monkeypatch.setattr(pipeline, "load", lambda name, **options: tiny)


def refused(capsys, arguments, says: str) -> str:
    """The command's one line."""
    assert main([str(argument) for argument in arguments]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ddcm ")]
    assert len(said) == 1 and says in said[0], said
    return said[0]


def lying(path, frames: int = 1600, **fields):
    """A wav whose header says something else than what is there."""
    soundfile.write(path, np.zeros(frames), 16000)
    data = bytearray(path.read_bytes())
    for name, (at, value) in {"rate": (24, fields.get("rate")), "size": (40, fields.get("size"))}.items():
        if name in fields:
            data[at : at + 4] = struct.pack("<I", value)
    path.write_bytes(data)
    return path


BAD = {
    "absent.wav": (lambda path: None, "no such file"),
    "folder.wav": (lambda path: path.mkdir(), "no audio in"),
    "empty.wav": (lambda path: path.touch(), "empty"),
    "text.mp3": (lambda path: path.write_text("ID3 and nothing more\n" * 50), "not readable"),
    "pickle.wav": (lambda path: path.write_bytes(pickle.dumps([1])), "not readable"),
    "four-gigabytes.wav": (lambda path: lying(path, size=0xFFFFFFF0), "truncated"),
    "one-hertz.wav": (lambda path: lying(path, rate=1), "1 Hz"),
    "gigahertz.wav": (lambda path: lying(path, rate=1 << 30), "Hz"),
    "nan.wav": (lambda path: soundfile.write(path, np.full(99, np.nan), 16000, subtype="FLOAT"), "NaN"),
    "huge.wav": (lambda path: soundfile.write(path, np.full(99, 1e300), 48000, subtype="DOUBLE"), "infinite"),
    "x" * 300 + ".wav": (lambda path: None, "too long"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_audio(tmp_path, capsys, name):
    make, says = BAD[name]
    make(tmp_path / name)
    for verb, options in (("reconstruct", TINY), ("compress", TINY[:2])):
        line = refused(capsys, [verb, tmp_path / name, "-o", tmp_path / "out", *options], says)
        assert name in line and not (tmp_path / "out").exists()
    if says != "no audio in":
        with pytest.raises(UserError, match=says) as caught:
            read_audio(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


GOOD = {
    "8 kHz, 8 bit": (tone(0.1, 8000), 8000, "PCM_U8"),
    "192 kHz, 8 channels, float": (tone(0.1, 192000, 8), 192000, "FLOAT"),
    "silence": (np.zeros(1601), 16000, "PCM_16"),
    "one sample": (np.array([0.5]), 44100, "PCM_24"),
    "loud": (tone(0.1, 16000) * 1e30, 16000, "FLOAT"),
}


@pytest.mark.parametrize("what", GOOD)
def test_odd_audio_keeps_its_length(tmp_path, tiny, what):
    samples, rate, subtype = GOOD[what]
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype=subtype)
    wanted = max(1, round(len(samples) * 16000 / rate))
    assert main(["reconstruct", str(tmp_path / "a.wav"), "-o", str(tmp_path / "b.wav"), *TINY]) == 0
    assert soundfile.info(tmp_path / "b.wav").frames == wanted
    out = DDCMPipeline(tiny).reconstruct(samples.T, rate, quantizer="none").audio
    assert out.shape == (wanted,) and torch.isfinite(out).all()


@pytest.mark.parametrize(
    "samples, rate, says",
    [([], 16000, "samples in it"), ([[[1.0]]], 16000, "samples in it"), ([1.0, np.nan], 16000, "NaN"),
     ([3e38] * 9, 48000, "infinite"), ([1.0], 0, "0 Hz"), ([1.0], -16000, "Hz"), ([1.0], 10**9, "Hz")],
)  # fmt: skip
def test_bad_arrays(tiny, samples, rate, says):
    for verb in ("reconstruct", "compress"):
        with pytest.raises(UserError, match=says):
            getattr(DDCMPipeline(tiny), verb)(np.array(samples, np.float32), rate)


def test_memory_is_that_of_the_result(tmp_path, monkeypatch):
    """A few kilobytes of FLAC hold a minute of 8 channels at 96 kHz, or days."""
    with soundfile.SoundFile(tmp_path / "bomb.flac", "w", 96000, 8, "PCM_16") as file:
        for _ in range(60):
            file.write(np.zeros((96000, 8), np.int16))
    tracemalloc.start()
    try:
        size = len(read_audio(tmp_path / "bomb.flac"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 960_000 and peak < 2 * 4 * size + 4 * 4 * audio.BLOCK
    monkeypatch.setattr(audio, "LONGEST", 100_000)
    with pytest.raises(UserError, match=r"bomb.flac: longer than 0.0 h; cut it"):
        read_audio(tmp_path / "bomb.flac")


@pytest.mark.parametrize(
    "options, says",
    [(["--batch_size", "0"], "batch_size 0"), (["--recipe", "plane"], "nearest is"), (["--codebook", "no/such"], "hub"),
     (["--codebook", "thing.pt"], "pickles are not read")],
)  # fmt: skip
def test_bad_choices(tmp_path, capsys, options, says):
    command = ["transform", EXAMPLES / "bird.flac", "-o", tmp_path / "out", *TINY, *options]
    assert says in refused(capsys, command, says) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options, says", [({"device": "abacus"}, "abacus"), ({"device": "meta"}, "nothing"), ({"dtype": "int8"}, "dtype")]
)
def test_bad_devices(options, says):
    with pytest.raises(UserError, match=says) as caught:
        tiny_backbone(**options)
    assert "\n" not in str(caught.value)


def test_words_that_are_no_text(tiny):
    pipe = DDCMPipeline(tiny)
    for work in (lambda words: pipe.transform(torch.zeros(900), 16000, words, quantizer="none", steps=2),
                 lambda words: pipe.compress(torch.zeros(900), 16000, prompt=words, steps=2)):  # fmt: skip
        with pytest.raises(UserError, match=r"not text|out of bounds"):
            work(os.fsdecode(b"caf\xe9"))
    with pytest.raises(UserError, match="64 bits"):
        pipe.transform(torch.zeros(900), 16000, seed=1 << 70, quantizer="none", steps=2)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, (os.environ["DDCM_BOMB"],))


def test_foreign_files(tmp_path, capsys, monkeypatch, tiny):
    """Nothing is executed, nothing is written."""
    monkeypatch.setenv("DDCM_BOMB", str(tmp_path / "was run"))
    bomb = pickle.dumps(Bomb(), protocol=2)
    whole = DDCMPipeline(tiny).compress(torch.randn(900), 16000, steps=2)
    other = DDCMPipeline(tiny_backbone(seed=1)).compress(torch.randn(900), 16000, steps=2)
    files = {
        "pickle": (bomb, "not a .ddcm file"), "empty": (b"", "not a .ddcm file"), "cut": (whole[:-9], "damaged"),
        "flipped": (whole[:20] + bytes([whole[20] ^ 1]) + whole[21:], "damaged"),
        "other": (other, "made with backbone"),
        "new": (whole[:4] + b"\x07" + whole[5:], "version 7"),
        "audio": ((EXAMPLES / "bird.flac").read_bytes(), "not a"),
    }  # fmt: skip
    for name, (content, says) in files.items():
        path = tmp_path / f"{name}.ddcm"
        path.write_bytes(content)
        assert str(path) in refused(capsys, ["decompress", path, "-o", tmp_path / "out", *TINY[:2]], says)
        with pytest.raises(UserError, match=says):
            DDCMPipeline(tiny).decompress(content)
        if name != "other":
            assert str(path) in refused(capsys, ["inspect", path], says)
    save_codebook(tmp_path / "book", HardQuantizer(8), "tiny", tiny.latent_digest, {}, {})
    header = (1 << 62).to_bytes(8, "little") + b"{}"  # claims to be of 4 exabytes
    for content in (bomb, header, b""):
        (tmp_path / "book" / "model.safetensors").write_bytes(content)
        command = ["reconstruct", EXAMPLES / "bird.flac", "-o", tmp_path / "out", "--codebook", tmp_path / "book"]
        refused(capsys, [*command, *TINY[:2], "--quantizer", "hard"], "not a safetensors file")
    assert not (tmp_path / "out").exists() and not (tmp_path / "was run").exists()


def test_a_codebook_of_another_backbone(tmp_path, capsys):
    save_codebook(tmp_path / "book", HardQuantizer(8), "another", "0" * 16, {}, {})
    command = ["reconstruct", EXAMPLES / "bird.flac", "-o", tmp_path / "out", "--codebook", tmp_path / "book"]
    refused(capsys, [*command, *TINY[:2], "--quantizer", "hard"], "fitted on another")


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "c"):
        soundfile.write(folder / f"{name}.wav", tone(0.2, 16000), 16000)
    return folder


@contextmanager
def small_files(size: int):
    """A limit on the size of files stands in for a full disk: a write comes back short, or with an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("verb, size", [("reconstruct", 4000), ("compress", 30)])
def test_files_that_cannot_grow(tmp_path, capsys, sources, verb, size):
    command = [verb, str(sources), "-o", str(tmp_path / "out"), *TINY[: 4 if verb == "reconstruct" else 2]]
    with small_files(size):
        assert main(command) == 2
    said = capsys.readouterr().err
    assert "too large" in said and "3 of 3 files failed" in said and not made(tmp_path / "out")
    assert main(command) == 0 and len(made(tmp_path / "out")) == 3


def test_a_flac_that_cannot_grow(tmp_path, capsys, sources):
    """libsndfile does not name the reason."""
    with small_files(30):
        assert main(["reconstruct", str(sources / "a.wav"), "-o", str(tmp_path / "a.flac"), *TINY]) == 2
    assert "a.flac: could not be written (is the disk full?)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_full_disk(tmp_path, capsys, monkeypatch, sources):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ddcm.audio.files._wav_header", refuse)
    assert main(["reconstruct", str(sources), "-o", str(tmp_path / "out"), *TINY]) == 2
    said = capsys.readouterr().err
    assert "no space left" in said.lower() and "the rest was not tried" in said and not made(tmp_path / "out")


def test_places_that_cannot_be_written(tmp_path, capsys, sources):
    (tmp_path / "file").write_text("mine")
    places = [tmp_path / "file" / "a.wav", "/proc/ddcm/a.wav"]
    if os.getuid():  # nothing is read-only for root
        (tmp_path / "locked").mkdir(mode=0o555)
        places.append(tmp_path / "locked" / "a.wav")
    for place in places:
        assert str(place) in refused(capsys, ["reconstruct", sources / "a.wav", "-o", place, *TINY], "")
    assert (tmp_path / "file").read_text() == "mine"


def test_names_of_any_kind(tmp_path, capsys, tiny):
    names = ["träne.wav", "音楽.wav", "a\nb.wav", "-x.wav", "n" * 251 + ".wav", os.fsdecode(b"caf\xe9.wav")]
    (tmp_path / "in").mkdir()
    for name in names:
        with open(tmp_path / "in" / name, "wb") as file:
            soundfile.write(file, tone(0.05, 16000), 16000, format="WAV")
    (tmp_path / "in" / "bad\nline.wav").write_text("no audio")
    assert main(["reconstruct", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *TINY]) == 2
    assert made(tmp_path / "out") == set(names)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ddcm ")]
    assert len(said) == 1 and "bad\\nline.wav" in said[0]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
                                   torch.OutOfMemoryError("CUDA out of memory")])  # fmt: skip
def test_out_of_memory_concerns_one_file(tmp_path, capsys, monkeypatch, sources, error):
    reconstruct_fails(monkeypatch, 2, error)
    line = refused(capsys, ["reconstruct", sources, "-o", tmp_path / "out", *TINY], "out of memory")
    assert "b.wav" in line and made(tmp_path / "out") == {"a.wav", "c.wav"}
