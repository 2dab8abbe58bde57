"""The front end, against a direct computation and against its own contract."""

import librosa
import numpy as np
import pytest
import torch

from ddcm.audio.files import read_audio
from ddcm.audio.mel import MelSpec, log_mel
from tests.conftest import EXAMPLES


def direct(audio: np.ndarray) -> np.ndarray:
    """AudioLDM's training front end, step by step in float64."""
    padded = np.pad(audio.astype(np.float64), 432, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 1024)[::160]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)  # periodic Hann
    magnitude = np.abs(np.fft.rfft(frames * window, axis=1))
    bank = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=64, fmin=0, fmax=8000)
    return np.log(np.maximum(magnitude @ bank.T.astype(np.float64), 1e-5))


@pytest.mark.parametrize("name", ["speech", "drumloop", "melodic", "ambience", "drumroll", "bird"])
def test_equals_the_direct_computation(name):
    audio = read_audio(EXAMPLES / f"{name}.flac")
    ours = log_mel(audio[None])[0, 0].numpy()
    wanted = direct(audio.numpy())[: len(audio) // 160]
    assert ours.shape == (len(audio) // 160, 64)
    assert np.abs(ours - wanted).max() < 2e-3  # float32 near the floor
    assert np.abs(ours - wanted).mean() < 5e-5
    padded = torch.nn.functional.pad(audio[None, None], (432, 432), mode="reflect")[0, 0]
    spectrum = torch.stft(padded, 1024, 160, window=torch.hann_window(1024), center=False, return_complex=True).abs()
    bank = torch.from_numpy(librosa.filters.mel(sr=16000, n_fft=1024, n_mels=64, fmin=0, fmax=8000))
    single = (bank @ spectrum).clamp(min=1e-5).log().T[: len(audio) // 160]
    assert np.abs(ours - single.numpy()).max() < 1e-5


@pytest.mark.parametrize("samples, frames", [(163840, 1024), (163839, 1023), (160000, 1000), (160, 1), (400, 2)])
def test_frames_are_whole_hops(samples, frames):
    assert log_mel(torch.zeros(1, samples)).shape == (1, 1, frames, 64)


def test_silence_is_the_floor():
    assert torch.allclose(log_mel(torch.zeros(1, 1600)), torch.tensor(1e-5).log())


def test_a_batch_is_its_items(speech):
    pieces = speech[:32000].reshape(2, 16000)
    apart = torch.cat([log_mel(piece[None]) for piece in pieces])
    assert torch.allclose(log_mel(pieces), apart, atol=1e-5)


def test_autocast_does_not_reach_it(speech):
    with torch.autocast("cpu", torch.bfloat16):
        inside = log_mel(speech[None])
    assert inside.dtype == torch.float32 and torch.equal(inside, log_mel(speech[None]))


def test_gradients_are_finite_on_silence():
    audio = torch.zeros(1, 1600, requires_grad=True)
    log_mel(audio).sum().backward()
    assert torch.isfinite(audio.grad).all()


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(B, S\)"):
        log_mel(torch.zeros(1600))
    with pytest.raises(ValueError, match="one frame needs"):
        log_mel(torch.zeros(1, 159))
    assert MelSpec().hop == 160
