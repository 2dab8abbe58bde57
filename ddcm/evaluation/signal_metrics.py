"""Distances and similarities of two signals, computed without any of the models that they evaluate."""

import math
from collections.abc import Callable

import torch

from ddcm.audio.level import SILENCE, normalise_level
from ddcm.audio.mel import MelSpec, log_mel, mel_error_db

SAMPLE_RATE = 16000  # Of every signal that is compared.
Metric = Callable[[torch.Tensor, torch.Tensor], float]  # Reference (S,), estimate (S,), both at 16 kHz -> value.


def align_levels(reference: torch.Tensor, estimate: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Level two 16 kHz signals (S,) of one length; pad them to one frame at least. The reference gets zero mean and
    peak 0.5. The estimate gets the one gain that makes the median of the log-mel difference zero, over the cells where
    both are above the floor. A gain is a constant in the logarithm, and the median is the constant with the least mean
    absolute difference. (Equal power would depend on the few loudest cells.) Raises ValueError: the shapes differ, or
    are not (S,)."""
    _check_shapes(reference, estimate)
    spec = MelSpec()
    both = torch.stack([normalise_level(x.float())[0] for x in (reference, estimate)])
    reference, estimate = both = torch.nn.functional.pad(both, (0, max(0, spec.hop - len(reference))))
    a, b = log_mel(both, spec).split(1)
    floor = math.log(spec.floor) + 1e-3
    above = (a > floor) & (b > floor)
    if above.any():
        estimate = estimate * (a[above] - b[above]).median().exp()
    return reference, estimate


def aligned_log_mels(reference: torch.Tensor, estimate: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-mels (1, 1, T, 64) of two 16 kHz signals (S,) of one length, after ``align_levels``."""
    return log_mel(torch.stack(align_levels(reference, estimate)), MelSpec()).split(1)


def log_mel_mae_db(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Mean |difference| of the aligned log-mels of two 16 kHz signals (S,), in dB. 0 is best."""
    a, b = aligned_log_mels(reference, estimate)
    return mel_error_db(a, b)


def log_mel_corr(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Pearson correlation over all values of the aligned log-mels, in [-1, 1]. 0 where one is constant."""
    a, b = (mel.double().flatten() for mel in aligned_log_mels(reference, estimate))
    a, b = a - a.mean(), b - b.mean()
    norm = a.norm() * b.norm()
    return float(a @ b / norm) if norm > 0 else 0.0


def lsd_db(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Log-spectral distance in dB after level alignment; 0 is best.

    Root mean square over frequencies of the difference of 20 log10 |STFT| (1024, hop 256), mean over frames (Gray and
    Markel 1976). Magnitudes are clamped at 1e-3, about 100 dB below a full-scale sine, so that rounding has no effect.
    """
    a, b = (_stft(x, 1024, 256, 1024).clamp(min=1e-3) for x in align_levels(reference, estimate))
    return float((20 * (a / b).log10()).square().mean(dim=0).sqrt().mean())


def mrstft(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Multi-resolution STFT distance after level alignment (arXiv 1910.11480, equations 4 to 6); 0 is best.

    Spectral convergence plus mean |difference| of natural log magnitudes (clamped at 1e-3), mean over three
    resolutions. The convergence is relative to the reference; to the estimate where the reference is silent.
    """
    a, b = align_levels(reference, estimate)
    total, is_silent = 0.0, float(a.abs().max()) <= SILENCE
    for n_fft, hop, window in ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200)):
        x, y = _stft(a, n_fft, hop, window), _stft(b, n_fft, hop, window)
        convergence = (x - y).norm() / (y if is_silent else x).norm().clamp(min=1e-3)
        total += float(convergence + (x.clamp(min=1e-3) / y.clamp(min=1e-3)).log().abs().mean())
    return total / 3


def si_sdr_db(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, in [-100, 100] (arXiv 1811.02508); higher is better.

    It compares waveforms. A vocoder invents the phases, so even a good one has a low value.
    """
    _check_shapes(reference, estimate)
    a, b = (x.double() - x.double().mean() for x in (reference, estimate))
    target = (a @ b) / (a @ a).clamp(min=1e-12) * a
    return _ratio_db(target, b - target)


def hf_ratio_db(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Energy above 4 kHz of the estimate over the reference's, in dB, in [-100, 100]; 0 is best. No level alignment."""
    _check_shapes(reference, estimate)
    high = torch.fft.rfftfreq(len(reference), 1 / SAMPLE_RATE) >= 4000
    a, b = (torch.fft.rfft(x.double())[high] for x in (reference, estimate))
    return _ratio_db(b, a)


def _ratio_db(above: torch.Tensor, below: torch.Tensor) -> float:
    over, under = (float(x.abs().square().sum()) + 1e-12 for x in (above, below))
    return min(100.0, max(-100.0, 10 * math.log10(over / under)))


def _stft(audio: torch.Tensor, n_fft: int, hop: int, window: int) -> torch.Tensor:
    audio = torch.nn.functional.pad(audio, (0, max(0, n_fft - len(audio))))
    shape = torch.hann_window(window)
    return torch.stft(audio, n_fft, hop, window, shape, pad_mode="constant", return_complex=True).abs()


def _check_shapes(reference: torch.Tensor, estimate: torch.Tensor) -> None:
    if reference.shape != estimate.shape or reference.ndim != 1:
        raise ValueError(f"signals must both be (S,), not {tuple(reference.shape)} and {tuple(estimate.shape)}")
    if not (reference.is_floating_point() and estimate.is_floating_point()):  # 16 bits would not be at the same level
        raise ValueError(f"signals must be floats, not {reference.dtype} and {estimate.dtype}")


_METRICS = (log_mel_mae_db, log_mel_corr, lsd_db, mrstft, si_sdr_db, hf_ratio_db)
METRICS: dict[str, Metric] = {metric.__name__: metric for metric in _METRICS}
BEST = {"log_mel_corr": "high", "si_sdr_db": "high", "pesq_wb": "high", "stoi": "high", "visqol": "high",
        "dnsmos": "high", "speaker_similarity": "high", "hf_ratio_db": "zero"}  # fmt: skip
"""Which values are best: low ones, unless the metric is listed here."""


def badness(name: str, value: float) -> float:
    """The value on a scale where higher is worse, to rank files and recipes."""
    return {"low": value, "high": -value, "zero": abs(value)}[BEST.get(name, "low")]
