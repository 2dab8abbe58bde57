"""The level of a recording: mean and gain to AudioLDM's training level, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch

PEAK = 0.5  # AudioLDM's training level
SILENCE = 1e-6  # a peak below this is not brought up: it would be rounding noise
PIECE = 1 << 20  # samples that are summed at a time


@dataclass(frozen=True)
class Level:
    """How a recording was moved to AudioLDM2's level: levelled = (audio - mean) * gain."""

    mean: float
    gain: float

    def undo(self, audio: torch.Tensor) -> torch.Tensor:
        return audio / self.gain + self.mean


def level_of(mean: float, least: float, most: float) -> Level:
    """The level of a recording with this mean, smallest and largest sample. Silence stays."""
    peak = max(most - mean, mean - least)
    return Level(mean, PEAK / peak if peak > SILENCE else 1.0)


def measure_level(audio: torch.Tensor) -> Level:
    """The level of audio (S,), in float64 and without a second copy of a long recording."""
    mean = float(sum(piece.double().sum() for piece in audio.split(PIECE))) / len(audio)
    return level_of(mean, float(audio.min()), float(audio.max()))


def normalise_level(audio: torch.Tensor) -> tuple[torch.Tensor, Level]:
    """Audio (S,) -> zero mean and peak 0.5, as in AudioLDM's training, and how to undo it. Silence stays.

    The peak is that of the centred float32 samples, so that it is 0.5 exactly; ``measure_level`` may differ from it in
    the last digit.
    """
    mean = float(audio.double().mean())
    centred = audio - mean
    peak = float(centred.abs().max())
    gain = PEAK / peak if peak > SILENCE else 1.0
    return centred * gain, Level(mean, gain)
