"""Residual quantisation: each level quantises what the levels before it left over."""

import copy
import functools
from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from ddcm.quantize.base import Quantized, Quantizer, from_cells, to_cells
from ddcm.quantize.hard import GRADIENTS, HardQuantizer
from ddcm.quantize.vector import SingleCodebook
from ddcm.runtime.distributed import broadcast

MOST = 64  # levels; a .ddcm file has no more either


class ResidualQuantizer(Quantizer):
    """Several codebooks in a row, as in SoundStream (arXiv 2107.03312): codes (B, num_quantizers, *spatial).

    The codes of the first levels are codes of a lower rate: ``decode(codes[:, :n])``.

    Each level divides its residual by the residual's standard deviation at the start. One learning rate then suits all
    levels, although the eighth level's residual is a hundred times smaller than the first's. Each level moves its atoms
    towards its own residual, without gradients from other levels. In training, soft levels pass on what their mixture
    leaves; in eval mode every level uses its nearest atom.

    Args:
        num_quantizers: codes of a cell, 1 to 64.
        level: copied for each level; by default ``HardQuantizer()``.
    """

    scales: torch.Tensor

    def __init__(self, num_quantizers: int = 4, level: SingleCodebook | None = None):
        super().__init__()
        if not 1 <= num_quantizers <= MOST:
            raise ValueError(f"num_quantizers is from 1 to {MOST}, not {num_quantizers}")
        level = HardQuantizer() if level is None else level
        self.num_quantizers = num_quantizers
        self.codebook_size, self.embedding_dim = level.codebook_size, level.embedding_dim
        self.stack = nn.ModuleList(copy.deepcopy(level) for _ in range(num_quantizers))
        self.register_buffer("scales", torch.ones(num_quantizers))

    @property
    def _levels(self) -> Iterator[tuple[SingleCodebook, torch.Tensor]]:
        """Each level and the scale of its residual."""
        return zip(cast(Iterable[SingleCodebook], self.stack), self.scales, strict=True)

    def take(self, first: int, count: int, gain: float = 1.0) -> "ResidualQuantizer":
        """Some levels in a row as a quantizer of its own, with the same atoms, for values ``gain`` times as large."""
        part = ResidualQuantizer(count, self.level)
        part.stack = self.stack[first : first + count]
        part.scales = self.scales[first : first + count] * gain
        return part.eval()

    @property
    def level(self) -> SingleCodebook:
        return cast(SingleCodebook, self.stack[0])

    @torch.no_grad()
    def initialise(self, cells: torch.Tensor, seed: int = 0) -> None:
        """k-means on cells (N, D), the same on every rank, then on their residual, level after level."""
        residual = cells.float()
        for number, (level, scale) in enumerate(self._levels):
            deviation = residual.std()
            scale.copy_(torch.where(deviation > 0, deviation, 1.0))
            broadcast(self.scales)
            level.initialise(residual / scale, seed=seed + number)
            residual = residual - scale * F.embedding(level.encode(residual / scale), level.codebook)
        self.initialised.fill_(1)

    @property
    def level_atoms(self) -> torch.Tensor:
        return torch.stack([scale * level.codebook for level, scale in self._levels])

    def atom_usage(self) -> torch.Tensor:
        return torch.stack([level.usage for level, _ in self._levels])

    def encode(self, z: torch.Tensor) -> torch.Tensor:
        residual, codes = z.float(), []
        for level, scale in self._levels:
            codes.append(level.encode(residual / scale))
            residual = residual - scale * level.decode(codes[-1])
        return torch.stack(codes, dim=1)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (B, n, *spatial) of the first n levels -> z (B, D, *spatial)."""
        if not 1 <= codes.shape[1] <= self.num_quantizers:
            raise ValueError(f"codes (B, levels, ...) have 1 to {self.num_quantizers} levels, not {tuple(codes.shape)}")
        parts = zip(self._levels, codes.unbind(dim=1), strict=False)
        return functools.reduce(torch.add, (scale * level.decode(code) for (level, scale), code in parts))

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, z: torch.Tensor) -> Quantized:
        residual, results = z.detach().float(), []
        total = torch.zeros_like(residual)
        for level, scale in self._levels:
            result = level(residual / scale)
            value = scale * (result.z_q_codebook if self.training else level.decode(result.codes))
            residual, total = residual - value.detach(), total + value
            results.append(result)
        cells, quantized = to_cells(z, self.embedding_dim), to_cells(total, self.embedding_dim)
        losses = {"commitment": self.level.commitment * F.mse_loss(cells, quantized.detach())}
        if "codebook" in results[0].losses:
            losses["codebook"] = torch.stack([result.losses["codebook"] for result in results]).mean()
        z_q = from_cells(GRADIENTS[self.level.gradient](cells, quantized), z) if self.training else total.to(z.dtype)
        return Quantized(
            z=z_q,
            codes=torch.stack([result.codes for result in results], dim=1),
            z_q_codebook=total.to(z.dtype),
            losses=losses,
            perplexity=torch.stack([result.perplexity for result in results]).log().mean().exp(),
            usage=torch.stack([result.usage for result in results]).mean(),
            metrics=results[0].metrics,
        )
