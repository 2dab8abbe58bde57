"""A learned linear change of coordinates around a quantizer."""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from ddcm.quantize.base import Quantized, Quantizer, from_cells, to_cells
from ddcm.quantize.hard import HardQuantizer
from ddcm.runtime.distributed import broadcast


class ProjectedQuantizer(Quantizer):
    """Cells pass ``project_in`` to the inner quantizer's space, and ``project_out`` back.

    With a frozen encoder this is the only quantizer whose commitment loss moves something: ``project_in``. A third
    loss, mean |project_out(quantised) - z|^2 with gradients straight through to both projections, keeps the space from
    shrinking to a point, the minimum of the other two. Fewer inner than outer dimensions are the factorised codes of
    ViT-VQGAN (arXiv 2110.04627).

    Args:
        inner: the quantizer of the projected cells; its ``embedding_dim`` is not larger than the outer one. By default
            ``HardQuantizer()``.
        embedding_dim: D of the latents.
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
        self._set_projections(torch.eye(self.inner.embedding_dim, embedding_dim), torch.zeros(embedding_dim))

    @torch.no_grad()
    def _set_projections(self, basis: torch.Tensor, mean: torch.Tensor) -> None:
        """Project on orthonormal rows ``basis`` (D inner, D) around ``mean`` (D,), and back."""
        self.project_in.weight.copy_(basis)
        self.project_in.bias.copy_(-basis @ mean)
        self.project_out.weight.copy_(basis.T)
        self.project_out.bias.copy_(mean)

    @torch.no_grad()
    def initialise(self, cells: torch.Tensor, seed: int = 0) -> None:
        """Project on the principal axes of cells (N, D), largest first; then initialise the inner quantizer."""
        cells = cells.float()
        mean = cells.mean(dim=0)
        centred = (cells - mean).cpu().double()  # not every device has float64
        _, axes = torch.linalg.eigh(centred.T @ centred)
        basis = axes.flip(1).T[: self.inner.embedding_dim].to(cells)
        self._set_projections(broadcast(basis.contiguous()), broadcast(mean))
        self.inner.initialise(self.project_in(cells), seed=seed)
        self.initialised.fill_(1)

    def encode(self, z: torch.Tensor) -> torch.Tensor:
        return self.inner.encode(_project(z, self.project_in))

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return _project(self.inner.decode(codes), self.project_out)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, z: torch.Tensor) -> Quantized:
        inner = self.inner(_project(z, self.project_in))
        z_q = _project(inner.z, self.project_out)
        z_q_codebook = _project(inner.z_q_codebook, self.project_out) if self.training else z_q
        losses = inner.losses | {"projection": F.mse_loss(z_q, z.detach().float())}
        return replace(inner, z=z_q.to(z.dtype), z_q_codebook=z_q_codebook.to(z.dtype), losses=losses)


def _project(z: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    """A linear layer on the cells of z (B, D, *spatial); float32."""
    return from_cells(layer(to_cells(z, layer.in_features)), z.float())
