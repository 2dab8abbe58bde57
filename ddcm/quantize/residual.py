"""Residual quantisation: each level quantises what the levels before it left over."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from ddcm.quantize.base import Quantized, Quantizer, from_cells, to_cells
from ddcm.quantize.hard import HardQuantizer
from ddcm.quantize.vector import GRADIENTS, SingleCodebook
from ddcm.runtime.distributed import broadcast

MOST = 64  # levels; a .ddcm file has no more either


class ResidualQuantizer(Quantizer):
    """Several codebooks in a row, as in SoundStream (arXiv 2107.03312): codes (B, levels, *spatial).

    The first levels of the codes are codes of their own, of a lower rate: ``decode(codes[:, :n])``.

    Every level sees its residual in a unit of its own, the residual's standard deviation at the start: one learning
    rate then suits all of them, where the eighth level's residual is a hundred times smaller than the first's. Levels
    do not wait for each other's gradients: each moves its atoms towards the residual that it is given. Soft levels
    hand on what their mixture leaves in training; in eval mode every level takes its nearest atom.

    Args:
        num_quantizers: codes of a cell, 1 to 64.
        level: what each of them is, copied ``num_quantizers`` times; by default ``HardQuantizer()``.
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
    def _stages(self) -> Iterator[tuple[SingleCodebook, torch.Tensor]]:
        """Each level and its unit."""
        return zip(cast(Iterable[SingleCodebook], self.stack), self.scales, strict=True)

    @property
    def config(self) -> dict:
        return {"num_quantizers": self.num_quantizers, "level": self.stack[0]}

    @torch.no_grad()
    def initialise(self, cells: torch.Tensor, seed: int = 0) -> None:
        """k-means on cells (N, D), the same on every rank, then on what it leaves, level after level."""
        left = cells.float()
        for number, (level, _) in enumerate(self._stages):
            scale = left.std()
            self.scales[number] = torch.where(scale > 0, scale, 1.0)
            broadcast(self.scales)
            level.initialise(left / self.scales[number], seed=seed + number)
            codes = level.encode(left / self.scales[number])
            left = left - self.scales[number] * F.embedding(codes, level.codebook)

    def atom_usage(self) -> torch.Tensor:
        return torch.stack([level.usage for level, _ in self._stages])

    def encode(self, z: torch.Tensor) -> torch.Tensor:
        left, codes = z.float(), []
        for level, scale in self._stages:
            codes.append(level.encode(left / scale))
            left = left - scale * level.decode(codes[-1])
        return torch.stack(codes, dim=1)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (B, n, *spatial) of the first n levels -> z (B, D, *spatial)."""
        if not 1 <= codes.shape[1] <= self.num_quantizers:
            raise ValueError(f"codes (B, levels, ...) have 1 to {self.num_quantizers} levels, not {tuple(codes.shape)}")
        parts = zip(self._stages, codes.unbind(dim=1), strict=False)
        return functools.reduce(torch.add, (scale * level.decode(code) for (level, scale), code in parts))

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, z: torch.Tensor) -> Quantized:
        left, found = z.detach().float(), []
        total = torch.zeros_like(left)
        for level, scale in self._stages:
            one = level(left / scale)
            value = scale * (one.z_q_codebook if self.training else level.decode(one.codes))
            left, total = left - value.detach(), total + value
            found.append(one)
        codes = torch.stack([one.codes for one in found], dim=1)
        cells, learned = to_cells(z, self.embedding_dim), to_cells(total, self.embedding_dim)
        first, _ = next(self._stages)
        commitment = first.commitment * F.mse_loss(cells, learned.detach())
        losses = {"commitment": commitment}
        if "codebook" in found[0].losses:
            losses["codebook"] = torch.stack([one.losses["codebook"] for one in found]).mean()
        if self.training:
            gradient = GRADIENTS[first.gradient]
            passed = from_cells(gradient(cells, learned), z)
        else:
            passed = total.to(z.dtype)
        return Quantized(
            z=passed,
            codes=codes,
            z_q_codebook=total.to(z.dtype),
            losses=losses,
            perplexity=torch.stack([one.perplexity for one in found]).log().mean().exp(),
            usage=torch.stack([one.usage for one in found]).mean(),
            metrics=found[0].metrics,
        )
