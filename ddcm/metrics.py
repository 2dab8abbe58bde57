"""How close two signals are. One definition each; the judge shares nothing with the models it judges."""

from __future__ import annotations

import math

import torch

from ddcm.audio import level
from ddcm.mel import LN_TO_DB, MelSpec, log_mel


def aligned_log_mels(
    reference: torch.Tensor, estimate: torch.Tensor, sample_rate: int = 16000
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-mels (1, 1, T, 64) of two signals (S,) of one length, after level alignment.

    The reference is brought to zero mean and peak 0.5. The estimate gets the one gain that makes the median of the
    log-mel difference zero, over cells where both are above the floor: a gain is a constant in the logarithm, and the
    median is the constant that leaves the least mean absolute difference. (Equal power would be decided by the few
    loudest cells.)
    """
    if reference.shape != estimate.shape or reference.ndim != 1:
        raise ValueError(f"signals must both be (S,), not {tuple(reference.shape)} and {tuple(estimate.shape)}")
    spec = MelSpec(sample_rate=sample_rate)
    short = max(0, spec.hop - len(reference))
    reference, estimate = (torch.nn.functional.pad(level(x.float())[0], (0, short)) for x in (reference, estimate))
    a, b = log_mel(torch.stack([reference, estimate]), spec).split(1)
    floor = math.log(spec.floor) + 1e-3
    heard = (a > floor) & (b > floor)
    if heard.any():
        gain = (a[heard] - b[heard]).median().exp()
        b = log_mel((estimate * gain)[None], spec)
    return a, b


def log_mel_mae_db(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Mean |difference| of the aligned log-mels of two 16 kHz signals (S,), in dB. 0 is best."""
    a, b = aligned_log_mels(reference, estimate)
    return float((a - b).abs().mean()) * LN_TO_DB


def log_mel_corr(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Pearson correlation over all values of the aligned log-mels, in [-1, 1]. 0 where one is constant."""
    a, b = (mel.double().flatten() for mel in aligned_log_mels(reference, estimate))
    a, b = a - a.mean(), b - b.mean()
    norm = a.norm() * b.norm()
    return float(a @ b / norm) if norm > 0 else 0.0


def lsd_db(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Log-spectral distance of two signals (S,) in dB: the root mean square over frequencies of the difference of their
    log power spectra, averaged over frames (Gray and Markel, 1976). Spectra are floored 80 dB under the loudest bin,
    and the estimate's is moved by the median difference, as for ``log_mel_mae_db``. 0 is best.
    """
    if reference.shape != estimate.shape or reference.ndim != 1:
        raise ValueError(f"signals must both be (S,), not {tuple(reference.shape)} and {tuple(estimate.shape)}")
    short, window = max(0, 1024 - len(reference)), torch.hann_window(1024)
    spectra = []
    for signal in (reference, estimate):
        signal = torch.nn.functional.pad(level(signal.float())[0], (0, short))
        power = torch.stft(signal, 1024, 160, window=window, return_complex=True).abs().square()
        spectra.append(10 * power.clamp(min=float(power.max()) * 1e-8 + 1e-20).log10())
    a, b = spectra
    b = b + (a - b).median()
    return float((a - b).square().mean(dim=0).sqrt().mean())


METRICS = {"log_mel_mae_db": log_mel_mae_db, "log_mel_corr": log_mel_corr, "lsd_db": lsd_db}
