"""Seeded noise: each number depends on the seed and its position alone."""

import torch

from ddcm.errors import UserError


class NoiseTimeline:
    """``latent_noise`` of any length, drawn as it is read. A read may not start before the one before it."""

    def __init__(self, seed: int, channels: int, bands: int):
        self._generator = torch.Generator().manual_seed(seed)
        self._shape, self._start = (channels, bands), 0
        self._frames = torch.empty(0, channels, bands)

    def read(self, start: int, stop: int) -> torch.Tensor:
        """(channels, stop - start, bands): the frames from ``start`` to ``stop``."""
        missing = stop - self._start - len(self._frames)
        if missing > 0:
            self._frames = torch.cat([self._frames, torch.randn(missing, *self._shape, generator=self._generator)])
        self._frames, self._start = self._frames[start - self._start :], start
        return self._frames[: stop - start].movedim(1, 0).contiguous()


def latent_noise(seed: int, frames: int, channels: int, bands: int) -> torch.Tensor:
    """Unit Gaussian noise (channels, frames, bands), float32, on the CPU. It is drawn frame after frame: a longer
    recording starts with the noise of a shorter one, and windows of one timeline share the noise where they overlap.
    Other devices and dtypes would draw other numbers. Raises UserError: a seed of more than 64 bits."""
    if channels * bands % 16:  # torch draws in groups of 16; a last partial group would change the ones before
        raise ValueError(f"channels x bands must be a multiple of 16, not {channels} x {bands}")
    if not -(1 << 63) <= seed < 1 << 63:
        raise UserError(f"seed {seed} has more than 64 bits")
    return NoiseTimeline(seed, channels, bands).read(0, frames)
