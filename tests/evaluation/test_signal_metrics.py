"""Metrics: what they must measure, and what they must ignore."""

import pytest
import torch

from ddcm.evaluation.signal_metrics import METRICS, log_mel_corr, log_mel_mae_db


def test_a_signal_equals_itself(speech):
    assert log_mel_mae_db(speech, speech) == pytest.approx(0, abs=1e-4) and log_mel_corr(speech, speech) > 0.9999


@pytest.mark.parametrize("gain", [0.1, 3.0])
def test_level_and_offset_are_ignored(speech, gain):
    assert log_mel_mae_db(speech, gain * speech + 0.01) < 0.02


def test_a_constant_tilt_is_measured_in_db(speech):
    """Half of the bands 6 dB up: the median gain leaves 6 dB on one half, so 3 dB on average."""
    spectrum = torch.fft.rfft(speech)
    edge = len(spectrum) // 6  # about 1.3 kHz: the middle of the 64 bands
    spectrum[edge:] *= 2
    error = log_mel_mae_db(speech, torch.fft.irfft(spectrum, n=len(speech)))
    assert 2 < error < 4


def test_the_error_grows_with_noise(speech):
    noise = torch.randn(speech.shape, generator=torch.Generator().manual_seed(0))
    errors = [log_mel_mae_db(speech, speech + scale * noise) for scale in (0.001, 0.01, 0.1)]
    corrs = [log_mel_corr(speech, speech + scale * noise) for scale in (0.001, 0.01, 0.1)]
    assert errors == sorted(errors) and corrs == sorted(corrs, reverse=True) and errors[-1] > 10


@pytest.mark.parametrize("name", METRICS)
def test_silence_and_short_signals_give_numbers(name):
    for samples in (1, 100, 16000):
        for a, b in ((torch.zeros(samples), torch.zeros(samples)), (torch.zeros(samples), torch.randn(samples))):
            assert torch.isfinite(torch.tensor(METRICS[name](a, b)))
    with pytest.raises(ValueError, match="both be"):
        METRICS[name](torch.zeros(10), torch.zeros(11))
