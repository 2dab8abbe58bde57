"""Metrics agree with torchmetrics and auraloss, on recordings whose silent ends make all paddings equal."""

import pytest
import torch
from torch.nn.functional import pad

from ddcm.audio.files import read_audio
from ddcm.audio.mel import LN_TO_DB
from ddcm.evaluation.signal_metrics import (
    align_levels,
    aligned_log_mels,
    log_mel_corr,
    log_mel_mae_db,
    lsd_db,
    mrstft,
    si_sdr_db,
)
from tests.conftest import EXAMPLES

audio_metrics = pytest.importorskip("torchmetrics.functional.audio")
auraloss = pytest.importorskip("auraloss.freq")
import torchmetrics.functional as functional  # noqa: E402

SILENCE = 2048  # samples at each end: more than half of the longest STFT
FLOOR = 1e-3  # of magnitudes in lsd_db and mrstft; auraloss clamps powers


@pytest.fixture(scope="module", params=["bird", "speech"])
def pair(request) -> tuple[torch.Tensor, torch.Tensor]:
    """A recording (S,), and an estimate with noise, another level, and less treble. Both have zero mean."""
    reference = read_audio(EXAMPLES / f"{request.param}.flac")[:32000]
    noise = 0.05 * reference.std() * torch.randn(32000, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool1d(reference[None], 5, stride=1, padding=2)[0]
    return tuple(pad(x - x.mean(), (SILENCE, SILENCE)) for x in (reference, 0.6 * smooth + noise))


def test_si_sdr_is_that_of_torchmetrics(pair):
    reference, estimate = (x.double() for x in pair)
    wanted = audio_metrics.scale_invariant_signal_distortion_ratio(estimate, reference, zero_mean=True)
    assert si_sdr_db(*pair) == pytest.approx(float(wanted), abs=1e-4)


def test_correlation_and_error_of_log_mels_are_those_of_torchmetrics(pair):
    a, b = (mel.double().flatten() for mel in aligned_log_mels(*pair))
    assert log_mel_corr(*pair) == pytest.approx(float(functional.pearson_corrcoef(b, a)), abs=1e-6)
    assert log_mel_mae_db(*pair) == pytest.approx(float(functional.mean_absolute_error(b, a)) * LN_TO_DB, rel=1e-5)


def test_multi_resolution_distance_is_that_of_auraloss(pair):
    loss = auraloss.MultiResolutionSTFTLoss([1024, 2048, 512], [120, 240, 50], [600, 1200, 240], eps=FLOOR**2)
    reference, estimate = align_levels(*pair)
    wanted = float(loss(estimate[None, None], reference[None, None]))
    assert mrstft(*pair) == pytest.approx(wanted, rel=1e-4) and wanted > 0.1


def test_log_spectral_distance_is_that_of_auraloss_magnitudes(pair):
    stft = auraloss.STFTLoss(1024, 256, 1024, eps=FLOOR**2).stft
    a, b = (20 * stft(x[None])[0][0].T.log10() for x in align_levels(*pair))  # [frames, bins]
    wanted = functional.mean_squared_error(b.T, a.T, num_outputs=len(a)).sqrt().mean()
    assert lsd_db(*pair) == pytest.approx(float(wanted), rel=1e-4) and wanted > 1
