"""Soft assignment: every cell becomes a mixture of atoms, the near ones weighing most."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ddcm.quantize.kmeans import Distance, comparable, half_squares, nearest

CHUNK = 1 << 12  # cells at a time: some ten tensors of 2**12 x 1024 float32 numbers live at once


def mixture(
    cells: torch.Tensor, codebook: torch.Tensor, temperature: torch.Tensor | float, distance: Distance = "euclidean"
) -> torch.Tensor:
    """softmax(-d / temperature) over the atoms, times the atoms, for cells (N, D) and codebook (K, D): (N, D).

    d is the distance itself, not its square. As the temperature falls the mixture becomes the nearest atom; at
    exactly 0 it is. Gradients go to cells, atoms and temperature; weights are computed again for them rather
    than kept, so memory does not grow with N x K.
    """
    if isinstance(temperature, float | int) and temperature == 0:
        return F.embedding(nearest(cells, codebook, distance), codebook)
    if len(cells) == 0:
        return cells
    wanted = torch.is_grad_enabled() and (cells.requires_grad or codebook.requires_grad)
    temperature = torch.as_tensor(temperature, dtype=torch.float32, device=cells.device)

    def mix(part):
        if wanted:
            return checkpoint(_mix, part, codebook, temperature, distance, use_reentrant=False)
        return _mix(part, codebook, temperature, distance)

    return torch.cat([mix(part) for part in cells.split(CHUNK)])


def _mix(cells, codebook, temperature, distance) -> torch.Tensor:
    x = comparable(cells, distance)
    scores = half_squares(x, comparable(codebook, distance))  # [n, K]
    lowest, squares = scores.amin(dim=1, keepdim=True), x.square().sum(dim=1, keepdim=True)
    tiny = torch.finfo(scores.dtype).tiny
    least = (2 * lowest + squares).clamp(min=tiny).sqrt()
    # d - d_min = (d^2 - d_min^2) / (d + d_min): exact however close, where a difference of roots would round to 0.
    excess = 2 * (scores - lowest)
    farther = excess / ((excess + least.square()).clamp(min=tiny).sqrt() + least)
    return torch.softmax(-farther / temperature, dim=1) @ codebook
