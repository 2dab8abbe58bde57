"""The level of a recording: zero mean and peak 0.5, as in AudioLDM's training, and back."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

PEAK = 0.5
SILENCE = 1e-6  # a lower peak is not raised: it would be rounding noise
PIECE = 1 << 20  # samples summed at a time


@dataclass(frozen=True)
class Level:
    """How a recording is normalised: normalised = (audio - mean) * gain."""

    mean: float
    gain: float

    def apply(self, audio: torch.Tensor) -> torch.Tensor:
        return (audio - self.mean) * self.gain

    def undo(self, audio: torch.Tensor) -> torch.Tensor:
        return audio / self.gain + self.mean


def measure_level(audio: torch.Tensor) -> Level:
    """The level of audio (S,), in float64 and without a copy. Silence keeps a gain of 1."""
    return measure_pieces(audio.split(PIECE))


def measure_pieces(pieces: Iterable[torch.Tensor]) -> Level:
    """The level of a recording in consecutive pieces (n,)."""
    samples, total, least, most = 0, 0.0, float("inf"), float("-inf")
    for piece in pieces:
        if len(piece):
            samples, total = samples + len(piece), total + float(piece.double().sum())
            least, most = min(least, float(piece.min())), max(most, float(piece.max()))
    mean = total / samples
    return Level(mean, _choose_gain(max(most - mean, mean - least)))


def normalise_level(audio: torch.Tensor) -> tuple[torch.Tensor, Level]:
    """Audio (S,) -> the same at zero mean and peak 0.5, and its level. The peak is that of the centred float32 samples,
    so that it becomes 0.5 exactly. ``measure_level`` may differ in the last digit."""
    mean = measure_level(audio).mean
    gain = _choose_gain(float((audio - mean).abs().max()))
    level = Level(mean, gain)
    return level.apply(audio), level


def _choose_gain(peak: float) -> float:
    return PEAK / peak if peak > SILENCE else 1.0
