"""Soft quantisation: every cell becomes a mixture of atoms."""

from __future__ import annotations

import torch

from ddcm.quantize.base import from_cells, to_cells
from ddcm.quantize.kmeans import nearest

CHUNK = 1 << 13  # cells at a time: 2**13 x 1024 float32 distances are 32 MiB


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
@torch.autocast("cuda", enabled=False)
def soften(z: torch.Tensor, atoms: torch.Tensor, temperature: float) -> torch.Tensor:
    """z (B, D, *spatial) and atoms (K, D) of any codebook -> mixtures of atoms, in the shape and dtype of z.

    A cell's weights are softmax(-d / temperature) with d its Euclidean distances to the atoms, not their squares. A
    temperature of 0 is the nearest atom itself, ties going to the lowest index. Cells are taken in chunks: memory is
    K x ``CHUNK`` numbers, whatever the length.
    """
    if not temperature >= 0:
        raise ValueError(f"temperature must be at least 0, not {temperature}")
    atoms = atoms.detach().float()
    cells = to_cells(z, atoms.shape[1])
    if temperature == 0:
        return from_cells(atoms[nearest(cells, atoms)], z)
    mixed = []
    for part in cells.split(CHUNK):
        # Differences, not products: near an atom |x|^2 - 2 <x, e> + |e|^2 would lose what small temperatures look at.
        distance = torch.cdist(part, atoms, compute_mode="donot_use_mm_for_euclid_dist")
        distance -= distance.amin(dim=1, keepdim=True)
        mixed.append(torch.softmax(distance.div_(-temperature), dim=1) @ atoms)
    return from_cells(torch.cat(mixed) if mixed else cells, z)
