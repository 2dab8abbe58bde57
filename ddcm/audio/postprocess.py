"""Steps after the vocoder. Each takes the audio (S,), the reference (S,) that it was made from, and the rate in Hz."""

import math
from collections.abc import Callable

import torch

from ddcm.audio.mel import LN_TO_DB

CEILING = 0.99  # highest peak after ``limit``
HIGH_HZ = 4000.0
MOST_GAIN = 2.0  # 6 dB: limit of the gain of ``protect``
HIGH, MID = 48, 16  # first mel band above 4 kHz, and of the middle bands below it
Step = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
SILENT = 1e-9  # an energy below this is not matched


def match_rms(audio: torch.Tensor, reference: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Scale the audio to the reference's RMS level."""
    have, want = float(audio.double().square().sum()), float(reference.double().square().sum())
    return audio * (want / have) ** 0.5 if have > SILENT else audio


def band_pass(low: float, high: float, order: int) -> Step:
    """A zero-phase filter that keeps ``low`` to ``high`` Hz: it removes rumble, and hiss near the band's edge."""
    response = lambda f: _high_pass(f, low, order) * _low_pass(f, high, order)  # noqa: E731
    return lambda audio, reference, sample_rate: _shape(audio, sample_rate, response)


def keep_high_band(audio: torch.Tensor, reference: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """High-pass at 50 Hz, and raise the band above 4 kHz to the reference's energy, by 0 to 6 dB."""
    have, want = (energy_above(x, sample_rate, HIGH_HZ) for x in (audio, reference))
    gain = min(MOST_GAIN, max(1.0, (want / have) ** 0.5)) if have > SILENT else 1.0
    return _shape(audio, sample_rate, lambda f: _high_pass(f, 50, 4) * (1 + (gain - 1) * _high_pass(f, HIGH_HZ, 8)))


def limit_peak(audio: torch.Tensor, reference: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Scale the audio down if its peak is above 0.99."""
    peak = float(audio.abs().max())
    return audio * (CEILING / peak) if peak > CEILING else audio


STEPS: dict[str, Step] = {
    "volume": match_rms, "filter": band_pass(50, 7000, 4), "gentle": band_pass(20, 7500, 2),
    "protect": keep_high_band, "limit": limit_peak,
}  # fmt: skip


def postprocess(audio: torch.Tensor, reference: torch.Tensor, sample_rate: int, after: str) -> torch.Tensor:
    """Apply the steps that ``after`` names, separated by commas, in order; ``none`` is no step."""
    for name in after.split(","):
        if name != "none":
            audio = STEPS[name](audio, reference, sample_rate)
    return audio


def _shape(audio: torch.Tensor, sample_rate: int, response: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Zero-phase filter by a response over frequencies in Hz; padding keeps the ends from wrapping around."""
    size = 1 << math.ceil(math.log2(len(audio) + sample_rate))
    frequencies = torch.fft.rfftfreq(size, 1 / sample_rate)
    return torch.fft.irfft(torch.fft.rfft(audio, size) * response(frequencies), size)[: len(audio)]


def _low_pass(f: torch.Tensor, edge: float, order: int) -> torch.Tensor:
    """Butterworth magnitude response: -3 dB at the edge."""
    return (1 + (f / edge) ** (2 * order)).rsqrt()


def _high_pass(f: torch.Tensor, edge: float, order: int) -> torch.Tensor:
    return (1 + (edge / f.clamp(min=1e-3)) ** (2 * order)).rsqrt()


def energy_above(audio: torch.Tensor, sample_rate: int, edge: float) -> float:
    """Energy of audio (S,) at frequencies from ``edge`` Hz up."""
    spectrum = torch.fft.rfft(audio.double())
    frequencies = torch.fft.rfftfreq(len(audio), 1 / sample_rate)
    return float(spectrum[frequencies >= edge].abs().square().sum()) / len(audio)


def lift_high(mel: torch.Tensor, kept: float) -> tuple[torch.Tensor, float]:
    """Raise the bands from 48 up of a decoded log-mel (1, 1, T, M): (log-mel, factor on their magnitudes). The factor
    is 1 + min(0.5, (mean of bands 16 to 47 - mean of bands from 48 up) / 10), with means in decibels; at least 1 and at
    most 1 / ``kept``, the share of the input's magnitude above 4 kHz (root of the energy) that is left after the
    vocoder. From 0.9 on, nothing is raised."""
    if 1 - kept <= 0.1:
        return mel, 1.0
    gap_db = float(mel[..., MID:HIGH].mean() - mel[..., HIGH:].mean()) * LN_TO_DB
    factor = min(1 + min(0.5, max(0.0, gap_db / 10)), 1 / max(kept, 1e-3))
    lifted = mel.clone()
    lifted[..., HIGH:] += math.log(factor)
    return lifted, factor
