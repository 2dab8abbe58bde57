"""Hard quantisation: every cell becomes its nearest atom."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

from ddcm.quantize.kmeans import Distance
from ddcm.quantize.vector import GRADIENTS, SingleCodebook


class HardQuantizer(SingleCodebook):
    """Vector quantisation of z (B, D, *spatial) with K atoms, as in VQ-VAE (arXiv 1711.00937).

    Args:
        gradient: how gradients pass to z: ``straight-through``, or ``rotation`` (arXiv 2410.06424). Without
            something before the codebook that learns it makes no difference.

    The others are those of ``SingleCodebook``.
    """

    def __init__(
        self,
        codebook_size: int = 1024,
        embedding_dim: int = 8,
        commitment: float = 0.25,
        learn: Literal["gradient", "ema"] = "gradient",
        decay: float = 0.99,
        threshold_usage_ratio: float = 0.05,
        distance: Distance = "euclidean",
        gradient: Literal["straight-through", "rotation"] = "straight-through",
    ):
        super().__init__(codebook_size, embedding_dim, commitment, learn, decay, threshold_usage_ratio, distance)
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient is one of {', '.join(GRADIENTS)}, not {gradient!r}")
        self.gradient = gradient

    @property
    def config(self) -> dict:
        return super().config | {"gradient": self.gradient}

    def approximate(self, cells: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        atoms = F.embedding(codes, self.codebook.float())
        if not self.training:
            return atoms, atoms
        return GRADIENTS[self.gradient](cells, atoms), atoms
