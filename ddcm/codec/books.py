"""Noise codebooks: K atoms of n numbers for every (window, step), fixed by a seed, never stored and never all in
memory.

One contract, two codebooks:

    correlate(window, step, residual (..., n))              -> (..., K) float32, the inner products with each atom
    synthesize(window, step, atoms (M,), weights (M,))      -> (n,) float32, the weighted sum, scaled to unit power

Sums are of integers, and the scale is taken in float64 from an exact sum of squares: the noise is the same to the
last bit on every machine. Correlations only choose atoms at the encoder, so they may round as they like. All of it
runs on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ddcm.philox import GRID, normals, words

START = SIGNS = 0xFFFFFFFF  # places in the counter that no step and no atom has
BLOCK = 4  # atoms that are drawn at a time: what fits into a processor's cache is fastest


class Book(Protocol):
    """The contract above."""

    @property
    def atoms(self) -> int:
        """K"""

    def correlate(self, window: int, step: int, residual: torch.Tensor) -> torch.Tensor: ...

    def synthesize(self, window: int, step: int, atoms: Sequence[int], weights: Sequence[int]) -> torch.Tensor: ...


@dataclass(frozen=True)
class Hadamard:
    """Rows of H S: H the Hadamard matrix of size N = 2^log2_atoms >= n, S random signs of the (window, step).

    The first n columns of it are used. Where n = N the atoms are orthogonal, so that the best M atoms are the M largest
    correlations, exactly. A fast Walsh-Hadamard transform takes N log2 N additions instead of K n multiplications.
    """

    seed: int
    numbers: int
    log2_atoms: int

    @property
    def atoms(self) -> int:
        return 1 << self.log2_atoms

    def correlate(self, window: int, step: int, residual: torch.Tensor) -> torch.Tensor:
        padded = residual.new_zeros(*residual.shape[:-1], self.atoms)
        padded[..., : self.numbers] = residual * self._signs(window, step)
        return walsh_hadamard(padded)

    def synthesize(self, window: int, step: int, atoms: Sequence[int], weights: Sequence[int]) -> torch.Tensor:
        chosen = torch.zeros(self.atoms, dtype=torch.int64)
        chosen[torch.as_tensor(atoms)] = torch.as_tensor(weights)
        return unit_power(walsh_hadamard(chosen)[: self.numbers] * self._signs(window, step))

    def _signs(self, window: int, step: int) -> torch.Tensor:
        drawn = words(-(-self.numbers // 32), ([SIGNS], step, window), self.seed)[0].astype("<u4")
        bits = np.unpackbits(drawn.view(np.uint8), bitorder="little")[: self.numbers]
        return torch.from_numpy(bits.astype(np.int64)).mul_(2).sub_(1)


@dataclass(frozen=True)
class Gaussian:
    """Independent unit normal atoms, as in the papers; K = 2^log2_atoms. Each can be made alone."""

    seed: int
    numbers: int
    log2_atoms: int

    @property
    def atoms(self) -> int:
        return 1 << self.log2_atoms

    def correlate(self, window: int, step: int, residual: torch.Tensor) -> torch.Tensor:
        blocks = (range(first, min(first + BLOCK, self.atoms)) for first in range(0, self.atoms, BLOCK))
        return torch.cat([residual @ self._draw(window, step, block).float().T for block in blocks], dim=-1) / GRID

    def synthesize(self, window: int, step: int, atoms: Sequence[int], weights: Sequence[int]) -> torch.Tensor:
        total = torch.zeros(self.numbers, dtype=torch.int64)
        for first in range(0, len(atoms), BLOCK):
            drawn = self._draw(window, step, atoms[first : first + BLOCK]).long()
            total += (drawn * torch.as_tensor(weights[first : first + BLOCK])[:, None]).sum(dim=0)
        return unit_power(total)

    def _draw(self, window: int, step: int, atoms: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(normals(self.numbers, (np.asarray(atoms), step, window), self.seed))


BOOKS: dict[str, type[Hadamard] | type[Gaussian]] = {"hadamard": Hadamard, "gaussian": Gaussian}


def start_noise(seed: int, window: int, numbers: int) -> torch.Tensor:
    """(n,) float32: the unit normal noise that a window starts from. Part of the seed, it costs no bits."""
    return torch.from_numpy(normals(numbers, ([0], START, window), seed)[0].astype(np.float32) / GRID)


def walsh_hadamard(x: torch.Tensor) -> torch.Tensor:
    """(..., 2^k) -> the product with the Hadamard matrix in Sylvester's order, unscaled; exact on integers."""
    size = x.shape[-1]
    for half in (1 << k for k in range(size.bit_length() - 1)):
        a, b = x.reshape(*x.shape[:-1], -1, 2, half).unbind(-2)
        x = torch.stack([a + b, a - b], dim=-2).reshape(x.shape)
    return x


def unit_power(total: torch.Tensor) -> torch.Tensor:
    """Integers (n,) -> float32 (n,) with mean square 1. All zeros stay zeros."""
    power = int((total * total).sum())
    scale = math.sqrt(len(total) / power) if power else 0.0
    return (total.double() * scale).float()
