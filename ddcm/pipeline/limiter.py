"""Limits on how far a latent may spread."""

from __future__ import annotations

import torch

LIMITS = {"strict": (3.0, 3.0), "loose": (5.0, 4.5), "balanced": (3.0, None)}
"""name -> (standard deviation above which it acts, standard deviation that it leaves; None: half of the excess)"""


def limit_std(z_raw: torch.Tensor, limiter: str) -> torch.Tensor:
    """z_raw (W, C, L, F), all windows of one recording -> the same, scaled down where it spreads too far.

    One factor for the recording, from the standard deviation of all its numbers, so that windows stay level with each
    other. ``strict``: over 3.0 -> 3.0. ``loose``: over 5.0 -> 4.5. ``balanced``: over 3.0 -> the geometric mean of what
    it was and 3.0, half of the excess in decibels. ``none``: as it is. A latent that spreads less is returned
    untouched, and so is a single number.
    """
    if limiter == "none" or z_raw.numel() < 2:
        return z_raw
    above, target = LIMITS[limiter]
    std = float(z_raw.double().std())
    if std <= above:
        return z_raw
    return z_raw * ((target or (std * above) ** 0.5) / std)
