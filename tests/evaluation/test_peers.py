"""Codecs to compare with: bytes, lengths and rates of Opus, Codec2, EnCodec and DAC."""

import math

import pytest
import torch

from ddcm.errors import UserError
from ddcm.evaluation import peers
from ddcm.evaluation.neural_codecs import list_neural
from ddcm.evaluation.peers import ENCODERS, align, count_bytes, find_encoders, list_by_ffmpeg
from ddcm.evaluation.signal_metrics import log_mel_mae_db

CPU = torch.device("cpu")


@pytest.mark.parametrize("codec, kbps", [("opus", [6.0, 12.0]), ("codec2", [1.2, 3.2])])
def test_more_bytes_are_nearer(codec, kbps, speech):
    if ENCODERS[codec].name not in find_encoders():
        pytest.skip(f"no ffmpeg with {ENCODERS[codec].name}")
    less, more = (system.code(speech, None) for system in list_by_ffmpeg(codec, kbps))
    for coded, rate in ((less, kbps[0]), (more, kbps[1])):
        assert len(coded.audio) == len(speech)
        assert coded.size * 8 / len(speech) * 16 == pytest.approx(rate, rel=0.1)
    errors = [log_mel_mae_db(speech, coded.audio) for coded in (less, more)]
    assert errors[1] < errors[0] < 14


def test_rates_that_a_codec_lacks_are_left_out(monkeypatch):
    monkeypatch.setattr(peers, "find_encoders", lambda: {"libopus"})
    assert [system.name for system in list_by_ffmpeg("opus", [1.2, 9, 300])] == ["opus 9"]
    with pytest.raises(UserError, match="codec2 needs the program ffmpeg with libcodec2"):
        list_by_ffmpeg("codec2")


def test_the_delay_is_taken_off(speech):
    delayed = torch.nn.functional.pad(speech, (480, 0))[: len(speech)]
    assert log_mel_mae_db(speech, delayed) > 1
    assert torch.equal(align(speech, delayed)[: len(speech) - 480], speech[: len(speech) - 480])


@pytest.mark.parametrize("kind, rates", [("encodec", [0.6, 1.2]), ("dac", [0.1, 0.2, 0.3])])
def test_neural_codecs_from_a_folder(neural_codecs, speech, kind, rates):
    """The bytes are those of the codes: frames x codebooks x 4 bits."""
    systems = list_neural(str(neural_codecs / kind), CPU)
    assert [system.name for system in systems] == [f"{kind} {rate:g}" for rate in rates]
    seconds, frames = len(speech) / 16000, {"encodec": 75, "dac": 25}[kind]
    for system, rate in zip(systems, rates, strict=True):
        coded = system.code(speech, None)
        codebooks = round(rate * 1000 / frames / 4)
        assert coded.size == count_bytes(math.ceil(seconds * frames) * codebooks, 16)
        assert len(coded.audio) == len(speech) and coded.audio.isfinite().all() and coded.audio.any()
        assert len(system.code(speech[:1], None).audio) == 1
    assert [system.name for system in list_neural(str(neural_codecs / kind), CPU, [rates[1], 99])] == [systems[1].name]
    assert systems[0].settings["weights"] == systems[1].settings["weights"]


@pytest.mark.parametrize(
    "name, says",
    [("facebook/no-such-codec", "hf download facebook/no-such-codec"), ("examples", "not readable as EnCodec or DAC")],
)
def test_a_model_that_is_not_here_is_not_downloaded(name, says):
    with pytest.raises(UserError, match=says):
        list_neural(name, CPU)
