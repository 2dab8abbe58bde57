"""The codes of cells by distortion and rate: a beam search over the levels, all cells at once.

The cost of a cell is sum of w (x - atoms)^2 over its numbers, plus ``price`` times its bits. The search keeps the
``width`` best beginnings of each cell at every level, since the nearest atom of one level need not be the best start
for the next. A cell ends early where further levels cost more than they gain (reverse water-filling).
"""

from dataclasses import dataclass

import numpy as np
import torch

from ddcm.codec.codes.context import ONE
from ddcm.codec.codes.model import SURE, TRUST, CellModel

WIDTH = 8
MOST = 1 << 22  # costs at a time
UNIT = ONE * ONE


@dataclass(frozen=True)
class Rates:
    """Estimated bits of N cells, given what is decoded around them."""

    usage: torch.Tensor
    """(Q, K), shares"""
    end: torch.Tensor
    """(Q, N): probability that a cell ends before a level"""
    rest: torch.Tensor
    """(Q, D), variance that later levels leave"""
    mean: torch.Tensor | None = None
    """(N, D), predicted; None: no context"""
    variance: torch.Tensor | None = None
    """(N, D)"""

    def take(self, rows: slice) -> "Rates":
        """Of some of the cells."""
        mean, variance = (None if x is None else x[rows] for x in (self.mean, self.variance))
        return Rates(self.usage, self.end[:, rows], self.rest, mean, variance)

    def bits(self, level: int, atoms: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
        """(N, B, K) of the atoms (K, D) of a level, where the levels before gave ``sums`` (N, B, D)."""
        shares = self.usage[level]
        if self.mean is not None and self.variance is not None:
            inverse = 0.5 / (self.variance + self.rest[level])
            away = (self.mean[:, None] - sums) * inverse[:, None]
            energy = (inverse @ atoms.square().T)[:, None] - 2 * away @ atoms.T  # less what is alike for all atoms
            context = torch.softmax(shares.clamp(min=1e-5).log() - energy, dim=-1)
            shares = (TRUST * context + (16 - TRUST) * shares) / 16
        return -shares.clamp(min=1e-6).log2() - (1 - self.end[level]).log2()[:, None, None]


def estimate_rates(codes: np.ndarray, model: CellModel, device: torch.device) -> Rates:
    """The rates of each cell of a window whose codes (Q, L, F) may still change, as of cell (l, f) at l F + f."""
    (levels, frames, bands), dim = codes.shape, model.fixed.atoms.shape[2]
    ends, means, variances = np.zeros(codes.shape), *np.zeros((2, frames, bands, dim))
    for frame in range(frames):
        for group in model.cells():
            if model.prediction is not None:
                means[frame, group], variances[frame, group] = model.prediction
            for level in range(levels):
                ends[level, frame, group] = model.ends(level)
                at = group[model.open_cells()]
                if len(at):
                    model.update(level, codes[level, frame, at])

    def to_cells(x: np.ndarray, scale: float) -> torch.Tensor:
        return torch.from_numpy(x / scale).float().to(device)

    usage = model.fixed.usage / model.fixed.usage.sum(axis=1, keepdims=True)
    rates = Rates(to_cells(usage, 1), to_cells(ends.reshape(levels, -1), SURE), to_cells(model.fixed.rest, UNIT))
    if model.prediction is None:
        return rates
    return Rates(
        rates.usage, rates.end, rates.rest, to_cells(means.reshape(-1, dim), ONE),
        to_cells(variances.reshape(-1, dim), UNIT),
    )  # fmt: skip


def search(
    x: torch.Tensor, weights: torch.Tensor, atoms: torch.Tensor, rates: Rates | None, price: float, width: int = WIDTH
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells x (N, D), weights (N, D), atoms (Q, K, D) -> codes (N, Q) where K ends the cell, and their bits (N,).
    Without ``rates``, bits count nothing and no cell ends. Memory does not grow with N."""
    size = max(1, MOST // (width * atoms.shape[1]))
    parts = []
    for begin in range(0, len(x), size):
        rows = slice(begin, begin + size)
        parts.append(_search(x[rows], weights[rows], atoms, rates and rates.take(rows), price, width))
    codes, bits = zip(*parts, strict=True)
    return torch.cat(codes), torch.cat(bits)


def _search(
    x: torch.Tensor, weights: torch.Tensor, atoms: torch.Tensor, rates: Rates | None, price: float, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    count, (levels, size, dim) = len(x), atoms.shape
    sums, bits = x.new_zeros(count, 1, dim), x.new_zeros(count, 1)
    codes = torch.zeros(count, 1, 0, dtype=torch.long, device=x.device)
    ends = []

    def close(bits: torch.Tensor) -> None:
        """Note the best of the present beginnings as an end."""
        cost, best = (((x[:, None] - sums).square() * weights[:, None]).sum(-1) + price * bits).min(dim=1, keepdim=True)
        code = codes.gather(1, best[..., None].expand(-1, -1, codes.shape[2]))[:, 0]
        code = torch.nn.functional.pad(code, (0, levels - code.shape[1]), value=size)
        ends.append((cost[:, 0], bits.gather(1, best)[:, 0], code))

    for level, table in enumerate(atoms):
        away, grown = x[:, None] - sums, bits[..., None]
        scaled = away * weights[:, None]
        cost = (away * scaled).sum(-1, keepdim=True) - 2 * scaled @ table.T + (weights @ table.square().T)[:, None]
        if rates is not None:
            close(bits - rates.end[level].log2()[:, None])
            grown = grown + rates.bits(level, table, sums)
            cost = cost + price * grown
        grown = grown.expand_as(cost).flatten(1)
        top = cost.flatten(1).topk(min(width, grown.shape[1]), dim=1, largest=False).indices
        begin, atom, bits = top // size, top % size, grown.gather(1, top)
        sums = sums.gather(1, begin[..., None].expand(-1, -1, dim)) + table[atom]
        codes = torch.cat([codes.gather(1, begin[..., None].expand(-1, -1, level)), atom[..., None]], dim=-1)
    close(bits)
    costs, all_bits, all_codes = (torch.stack(part) for part in zip(*ends, strict=True))
    best = costs.argmin(dim=0)
    rows = torch.arange(count, device=x.device)
    return all_codes[best, rows], all_bits[best, rows]
