"""Long recordings as overlapping windows, and windows back as one."""

from __future__ import annotations

import torch

FRAMES = 1024  # 10.24 s, what AudioLDM2 was trained on
OVERLAP = 64  # frames that neighbours share at least


def starts(total: int, size: int = FRAMES, overlap: int = OVERLAP) -> list[int]:
    """First frames of windows of ``size`` over ``total`` frames. One window where it is enough.

    All are of one shape, so they can be batched: the last one ends with the recording and overlaps more.
    """
    if total <= size:
        return [0]
    return [*range(0, total - size, size - overlap), total - size]


def join(windows: torch.Tensor, first: list[int], total: int, overlap: int = OVERLAP) -> torch.Tensor:
    """Windows (W, 1, T, M) -> (1, 1, total, M), cross-faded linearly where they overlap."""
    frames = windows.shape[2]
    if len(first) == 1:
        return windows
    index = torch.arange(frames, dtype=torch.float32)
    ramp = torch.minimum(index + 1, frames - index).clamp(max=overlap + 1) / (overlap + 1)
    ramp = ramp[:, None].to(windows)
    out = windows.new_zeros(1, 1, total, windows.shape[3])
    weight = windows.new_zeros(total, 1)
    for window, start in zip(windows, first, strict=True):
        out[0, 0, start : start + frames] += window[0] * ramp
        weight[start : start + frames] += ramp
    return out / weight
