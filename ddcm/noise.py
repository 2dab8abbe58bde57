"""Seeded noise that depends on nothing but the seed and the place."""

from __future__ import annotations

import torch

from ddcm.errors import UserError


def latent_noise(seed: int, frames: int, channels: int, bands: int) -> torch.Tensor:
    """Unit Gaussian noise (channels, frames, bands), float32, on the CPU.

    Drawn frame after frame, so that a longer recording starts with the noise of a shorter one and windows cut
    from one timeline share the noise where they overlap. Always drawn on the CPU in float32: other devices
    and dtypes have other streams.
    """
    if channels * bands % 16:  # torch draws in groups of 16; a last partial group would change the ones before
        raise ValueError(f"channels x bands must be a multiple of 16, not {channels} x {bands}")
    if not -(1 << 63) <= seed < 1 << 63:
        raise UserError(f"seed {seed} has more than 64 bits")
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, channels, bands, generator=generator).movedim(1, 0).contiguous()
