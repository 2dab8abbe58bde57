"""A learned change of coordinates around a quantizer."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ddcm.quantize.base import Quantized, Quantizer, from_cells, to_cells
from ddcm.quantize.hard import HardQuantizer
from ddcm.runtime.distributed import broadcast


class ProjectedQuantizer(Quantizer):
    """Cells go through ``project_in`` to the inner quantizer's space and back through ``project_out``.

    The one place where the commitment term has something to move: with a frozen encoder, ``project_in``. A third
    term, mean |project_out(quantised) - z|^2 with gradients straight through to both, keeps it from shrinking
    the space to a point, which the other two would like best. Fewer inner dimensions than outer ones are the
    factorised codes of ViT-VQGAN (arXiv 2110.04627).

    Args:
        inner: any quantizer; its ``embedding_dim`` is the dimension projected to. By default ``HardQuantizer()``.
        embedding_dim: D of the latents. Not smaller than the inner one.
    """

    def __init__(self, inner: Quantizer | None = None, embedding_dim: int = 8):
        super().__init__()
        self.inner = HardQuantizer(embedding_dim=embedding_dim) if inner is None else inner
        if self.inner.embedding_dim > embedding_dim:
            raise ValueError(f"cells of {embedding_dim} numbers cannot fill {self.inner.embedding_dim} dimensions")
        self.embedding_dim, self.codebook_size = embedding_dim, self.inner.codebook_size
        self.num_quantizers = self.inner.num_quantizers
        self.project_in = nn.Linear(embedding_dim, self.inner.embedding_dim)
        self.project_out = nn.Linear(self.inner.embedding_dim, embedding_dim)
        self._start(torch.eye(self.inner.embedding_dim, embedding_dim), torch.zeros(embedding_dim))

    @torch.no_grad()
    def _start(self, basis: torch.Tensor, mean: torch.Tensor) -> None:
        """Orthonormal rows ``basis`` (D inner, D) around ``mean`` (D,): out undoes in, as far as it can."""
        self.project_in.weight.copy_(basis)
        self.project_in.bias.copy_(-basis @ mean)
        self.project_out.weight.copy_(basis.T)
        self.project_out.bias.copy_(mean)

    @property
    def config(self) -> dict:
        return {"inner": self.inner, "embedding_dim": self.embedding_dim}

    @torch.no_grad()
    def initialise(self, cells: torch.Tensor, seed: int = 0) -> None:
        """The principal axes of cells (N, D), largest first; then the inner quantizer's own start."""
        cells = cells.float()
        mean = cells.mean(dim=0)
        _, axes = torch.linalg.eigh((cells - mean).T.double() @ (cells - mean).double())
        basis = axes.flip(1).T[: self.inner.embedding_dim].to(cells)
        self._start(broadcast(basis.contiguous()), broadcast(mean))
        self.inner.initialise(self.project_in(cells), seed=seed)

    def _within(self, z: torch.Tensor) -> torch.Tensor:
        return from_cells(self.project_in(to_cells(z, self.embedding_dim)), z.float())

    def _without(self, inner: torch.Tensor) -> torch.Tensor:
        return from_cells(self.project_out(to_cells(inner, self.inner.embedding_dim)), inner.float())

    def encode(self, z: torch.Tensor) -> torch.Tensor:
        return self.inner.encode(self._within(z))

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return self._without(self.inner.decode(codes))

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, z: torch.Tensor) -> Quantized:
        found = self.inner(self._within(z))
        passed = self._without(found.z)
        learned = self._without(found.z_q_codebook) if self.training else passed
        losses = dict(found.losses, projection=F.mse_loss(passed, z.detach().float()))
        return Quantized(
            passed.to(z.dtype), found.codes, learned.to(z.dtype), losses, found.perplexity, found.usage, found.metrics
        )
