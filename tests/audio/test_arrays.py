"""Arrays from Python mean what their type and shape say, or are refused; nothing that is written clips."""

import io

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddcm.audio.files import audio_writer, encode_audio, read_audio, to_mono, write_audio
from ddcm.cli.main import main
from ddcm.errors import UserError
from ddcm.evaluation.signal_metrics import METRICS
from ddcm.pipeline import DDCMPipeline

RATE = 16000
STEREO = np.random.default_rng(0).normal(0, 0.1, (1600, 2)).clip(-0.99, 0.99).astype(np.float32)
MONO = STEREO.mean(axis=1)
SCALES = {np.int8: 2**7, np.int16: 2**15, np.int32: 2**31}


def as_integers(audio: np.ndarray, kind: type) -> np.ndarray:
    if kind is np.uint8:
        return (np.round(audio * 128) + 128).astype(kind)
    return np.round(audio.astype(np.float64) * SCALES[kind]).astype(kind)


LAYOUTS = {
    "mono": (lambda x: x[:, 0], lambda x: x[:, 0]),
    "soundfile": (lambda x: x, lambda x: x.mean(axis=1)),
    "channels first": (lambda x: x.T, lambda x: x.mean(axis=1)),
    "one column": (lambda x: x[:, :1], lambda x: x[:, 0]),
    "one row": (lambda x: x[:, :1].T, lambda x: x[:, 0]),
    "backwards": (lambda x: x[::-1], lambda x: x[::-1].mean(axis=1)),
    "channels swapped": (lambda x: x[:, ::-1].T, lambda x: x.mean(axis=1)),
    "every second": (lambda x: x[::2], lambda x: x[::2].mean(axis=1)),
    "Fortran": (np.asfortranarray, lambda x: x.mean(axis=1)),
}
KINDS = {
    "float16": lambda x: x.astype(np.float16), "float32": lambda x: x, "float64": lambda x: x.astype(np.float64),
    "big-endian float": lambda x: x.astype(">f4"), "big-endian int": lambda x: as_integers(x, np.int16).astype(">i2"),
    "int8": lambda x: as_integers(x, np.int8), "uint8": lambda x: as_integers(x, np.uint8),
    "int16": lambda x: as_integers(x, np.int16), "int32": lambda x: as_integers(x, np.int32),
    "read-only": lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
}  # fmt: skip


def tensor(x):
    return torch.from_numpy(np.array(x, x.dtype.newbyteorder("="), order="C"))


def with_gradient(x):
    return tensor(x).requires_grad_() if x.dtype.kind == "f" else tensor(x)


def nested_list(x):
    return x.tolist() if x.dtype.kind == "f" else x


CONTAINERS = {"numpy": lambda x: x, "torch": tensor, "gradient": with_gradient, "list": nested_list}


@given(st.sampled_from(sorted(LAYOUTS)), st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(CONTAINERS)))
def test_every_layout_type_and_container(layout, kind, container):
    arrange, expect = LAYOUTS[layout]
    audio = to_mono(CONTAINERS[container](arrange(KINDS[kind](STEREO))), RATE, RATE)
    assert audio.dtype == torch.float32 and audio.shape == expect(STEREO).shape
    assert np.abs(audio.numpy() - expect(STEREO)).max() < (1 / 128 if "8" in kind else 1e-3)


@pytest.mark.parametrize("verb", ["reconstruct", "transform", "compress"])
def test_every_verb_takes_them(tiny, verb):
    """The result is that of the channels' mean as floats."""
    pipe = DDCMPipeline(tiny)
    settings = {"steps": 2} if verb == "compress" else {"quantizer": "none", "steps": 2}
    if verb == "reconstruct":
        del settings["steps"]

    def run(audio):
        out = getattr(pipe, verb)(audio, RATE, **settings)
        return out if verb == "compress" else out.audio

    expected = run(torch.from_numpy(MONO))
    for audio in (STEREO, STEREO.T, STEREO.tolist(), torch.from_numpy(STEREO.T.copy())):
        out = run(audio)
        assert out == expected if verb == "compress" else torch.allclose(out, expected, atol=1e-3)
    shorts = as_integers(STEREO, np.int16)
    if verb == "compress":
        assert run(shorts) == run(shorts.astype(np.float32) / 2**15)
    else:
        assert run(shorts).shape == (1600,) and torch.allclose(run(shorts), run(shorts / 2.0**15), atol=1e-4)


BAD = {
    "square": np.zeros((2, 2)), "square, larger": np.zeros((40, 40)), "spectrogram": np.zeros((80, 500)),
    "batch": np.zeros((1, 2, 500)), "scalar": np.float32(1), "empty": np.zeros(0), "empty channels": np.zeros((0, 9)),
    "int64": np.zeros(9, np.int64), "list of integers": [1, 2, 3], "uint16": np.zeros(9, np.uint16),
    "bool": np.zeros(9, bool), "complex": np.zeros(9, complex), "ragged": [[1.0, 2.0], [1.0]], "text": "audio.wav",
    "objects": np.array([None, 1.0], object), "nothing": None,
    "infinite": np.array([1.0, np.inf]), "NaN": torch.tensor([1.0, np.nan]),
    "torch bool": torch.zeros(9, dtype=torch.bool), "torch int64": torch.zeros(9, dtype=torch.long),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_ambiguous_is_refused(tiny, name):
    pipe = DDCMPipeline(tiny)
    for verb in ("reconstruct", "transform", "compress"):
        with pytest.raises(UserError, match="audio") as caught:
            getattr(pipe, verb)(BAD[name], RATE, **({} if verb == "compress" else {"quantizer": "none"}))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [None, "16000", np.nan, 0, -1, np.int64(10**9)])
def test_a_rate_is_a_number_of_hertz(tiny, rate):
    with pytest.raises(UserError, match="Hz"):
        DDCMPipeline(tiny).reconstruct(MONO, rate, quantizer="none")


def written(path) -> np.ndarray:
    return soundfile.read(path)[0]


def write_whole(path, audio):
    write_audio(path, audio, RATE)


def write_pieces(path, audio):
    with audio_writer(path, RATE) as write:
        for piece in audio.split(300):
            write(piece)


def write_bytes(path, audio):
    path.write_bytes(encode_audio(audio, RATE))


@pytest.mark.parametrize("write", [write_whole, write_pieces, write_bytes])
@pytest.mark.parametrize("peak", [0.5, 1.0, 1 + 1e-6, 1.2, 300.0, -2.0, 1e30])
def test_nothing_clips_without_a_word(tmp_path, caplog, write, peak):
    audio = torch.from_numpy(MONO / np.abs(MONO).max() * 0.9)
    audio[700] = 1.0
    write(tmp_path / "a.wav", audio * peak)
    scale = 1 if abs(peak) <= 1.001 else 1 / abs(peak)
    assert np.abs(written(tmp_path / "a.wav") - (audio * peak * scale).numpy()).max() < 1e-4
    assert ("above full scale" in caplog.text) == (scale != 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_failed_stream_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), audio_writer(tmp_path / "a.wav", RATE) as write:
        write(torch.zeros(9))
        raise RuntimeError("the model failed")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("audio", [torch.zeros(2, 900), torch.zeros(900, dtype=torch.int16)])
def test_only_floats_of_one_channel_are_written(tmp_path, audio):
    for work in (lambda: write_audio(tmp_path / "a.wav", audio, RATE), lambda: encode_audio(audio, RATE)):
        with pytest.raises(ValueError, match="floats"):
            work()
    assert not list(tmp_path.iterdir())


def test_a_loud_file_through_the_command(tmp_path, capsys):
    """A float wav may be above full scale: the output has its form, not its level, and a line says so."""
    soundfile.write(tmp_path / "a.wav", STEREO * 40, RATE, subtype="FLOAT")
    command = ["reconstruct", str(tmp_path / "a.wav"), "-o", str(tmp_path / "b.wav"), "--backbone", "tiny"]
    assert main([*command, "--quantizer", "none"]) == 0
    assert "b.wav: peak" in capsys.readouterr().err
    audio = written(tmp_path / "b.wav")
    assert np.abs(audio).max() == pytest.approx(1, abs=1e-3) and (np.abs(audio) > 0.999).sum() <= 2


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint8])
def test_arrays_and_files_agree(tmp_path, kind):
    """What a file holds and what Python reads of it give the same samples."""
    subtype = {np.int16: "PCM_16", np.int32: "PCM_32", np.uint8: "PCM_U8"}[kind]
    soundfile.write(tmp_path / "a.wav", STEREO, 22050, subtype=subtype)
    if kind is np.uint8:
        data = (tmp_path / "a.wav").read_bytes()
        samples = np.frombuffer(data[data.index(b"data") + 8 :], np.uint8).reshape(-1, 2)
    else:
        samples = soundfile.read(tmp_path / "a.wav", dtype=np.dtype(kind).name)[0]
    assert torch.allclose(to_mono(samples, 22050, RATE), read_audio(tmp_path / "a.wav"), atol=1e-6)


def test_metrics_take_floats_only():
    """16 bits against floats would compare levels that differ by 32768."""
    for metric in METRICS.values():
        with pytest.raises(ValueError, match="floats"):
            metric(torch.from_numpy(MONO), torch.from_numpy(as_integers(MONO, np.int16)))


def test_what_soundfile_reads_back(tmp_path):
    """The layout that everybody's code has: ``soundfile.read`` in, ``soundfile.write`` out."""
    buffer = io.BytesIO()
    soundfile.write(buffer, STEREO, RATE, format="WAV", subtype="FLOAT")
    buffer.seek(0)
    audio, rate = soundfile.read(buffer)
    assert torch.equal(to_mono(audio, rate, RATE), torch.from_numpy(audio.astype(np.float32)).mean(dim=1))
