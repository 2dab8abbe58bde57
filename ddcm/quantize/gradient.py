"""How gradients pass a nearest-atom decision, which has none of its own."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def straight_through(cells: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
    """Cells and their atoms (N, D) -> the atoms' values, with the gradient of the identity (arXiv 1308.3432)."""
    return cells + (atoms - cells).detach()


def rotated(cells: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
    """The same values by the rotation and scaling that take each cell onto its atom (arXiv 2410.06424, equation 4).

    Both are held fixed, so the gradient is turned and scaled with the cell: its angle to the atom is the one that
    the loss saw. Cells that point away from their atom (or are zero) have no one shortest rotation; these are
    passed straight through.
    """
    fixed, atoms = cells.detach(), atoms.detach()
    lengths = fixed.norm(dim=1, keepdim=True), atoms.norm(dim=1, keepdim=True)
    e, q = F.normalize(fixed, dim=1), F.normalize(atoms, dim=1)
    r = F.normalize(e + q, dim=1)
    turned = cells - 2 * (cells * r).sum(1, keepdim=True) * r + 2 * (cells * e).sum(1, keepdim=True) * q
    defined = ((e + q).norm(dim=1, keepdim=True) > 1e-3) & (lengths[0] > 0)
    return torch.where(defined, turned * (lengths[1] / lengths[0].clamp(min=1e-12)), straight_through(cells, atoms))


GRADIENTS = {"straight-through": straight_through, "rotation": rotated}
