"""Hard quantisation: each cell becomes its nearest atom. Gradients are estimated, since the choice has none."""

from typing import Literal

import torch
from torch.nn import functional as F

from ddcm.quantize.vector import SingleCodebook


class HardQuantizer(SingleCodebook):
    """Vector quantisation of z (B, D, *spatial) with K atoms, as in VQ-VAE (arXiv 1711.00937).

    Args:
        codebook_size: K, number of atoms.
        embedding_dim: D, numbers in an atom.
        commitment: weight of the commitment loss.
        gradient: estimator of the gradient with respect to z: ``straight-through``, or ``rotation`` (arXiv
            2410.06424). It matters only if something before the codebook learns.
        options: those of ``SingleCodebook``.
    """

    def __init__(
        self, codebook_size: int = 1024, embedding_dim: int = 8, commitment: float = 0.25,
        gradient: Literal["straight-through", "rotation"] = "straight-through", **options,
    ):  # fmt: skip
        super().__init__(codebook_size, embedding_dim, commitment, **options)
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient is one of {', '.join(GRADIENTS)}, not {gradient!r}")
        self.gradient = gradient

    def approximate(self, cells: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        atoms = F.embedding(codes, self.codebook.float())
        return GRADIENTS[self.gradient](cells, atoms) if self.training else atoms, atoms


def straight_through(cells: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
    """Cells and their atoms (N, D) -> the atoms' values, with the gradient of the identity (arXiv 1308.3432)."""
    return cells + (atoms - cells).detach()


def rotate(cells: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
    """The atoms' values by the rotation and scaling that take each cell onto its atom (arXiv 2410.06424, equation 4).
    Rotation and scaling are constants to the gradient, so it turns and scales with the cell, and keeps its angle to the
    atom. A cell that is zero or points away from its atom has no unique shortest rotation: it is passed straight
    through."""
    fixed, atoms = cells.detach(), atoms.detach()
    lengths = fixed.norm(dim=1, keepdim=True), atoms.norm(dim=1, keepdim=True)
    e, q = F.normalize(fixed, dim=1), F.normalize(atoms, dim=1)
    r = F.normalize(e + q, dim=1)
    rotated = cells - 2 * (cells * r).sum(1, keepdim=True) * r + 2 * (cells * e).sum(1, keepdim=True) * q
    defined = ((e + q).norm(dim=1, keepdim=True) > 1e-3) & (lengths[0] > 0)
    return torch.where(defined, rotated * (lengths[1] / lengths[0].clamp(min=1e-12)), straight_through(cells, atoms))


GRADIENTS = {"straight-through": straight_through, "rotation": rotate}
