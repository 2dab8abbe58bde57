"""The correction of a vocoder's audio: it moves towards the mel, and leaves alone what is there already."""

import pytest
import torch

from ddcm.audio.files import read_audio
from ddcm.audio.mel import MelSpec, log_mel
from ddcm.audio.refine import refine
from tests.conftest import EXAMPLES

SPEC = MelSpec()


def error(audio, mel):
    return float((log_mel(audio[None]) - mel).abs().mean())


def test_a_wrong_timbre_is_corrected(speech):
    audio = speech[: len(speech) // 160 * 160]
    mel = log_mel(audio[None])
    noise = 0.1 * torch.randn(audio.shape, generator=torch.Generator().manual_seed(0))
    refined = refine(noise, mel, SPEC)
    assert refined.shape == audio.shape and torch.isfinite(refined).all()
    assert error(refined, mel) < error(noise, mel) / 5


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.flac")), ids=lambda path: path.stem)
def test_audio_with_that_mel_stays(path):
    """A vocoder that already gives its mel is not harmed, whatever the recording."""
    audio = read_audio(path)[:48000]
    audio = audio[: len(audio) // 160 * 160]
    refined = refine(audio, log_mel(audio[None]), SPEC)
    assert (refined - audio).abs().max() < 1e-3 * audio.abs().max()


@pytest.mark.parametrize("samples", [640, 1280, 16000])
def test_silence_and_short_audio(samples):
    silence = torch.zeros(samples)
    assert torch.isfinite(refine(silence, log_mel(silence[None]), SPEC)).all()
    audio = torch.randn(samples) * 0.1
    quiet = refine(audio, log_mel(silence[None]), SPEC)
    assert quiet.shape == (samples,) and quiet.abs().mean() < audio.abs().mean() / 20
