"""Noise codebooks: K atoms of n numbers for every (window, step), fixed by a seed, never stored and never all in
memory.

One contract, two codebooks:

    correlate(window, step, residual (..., n))              -> (..., K) float32, the inner products with each atom
    synthesize(window, step, atoms (M,), weights (M,))      -> (n,) float32, the weighted sum, scaled to unit power

Sums are of integers, and the scale is taken in float64 from an exact sum of squares: the noise is the same to the
last bit on every machine. Correlations only choose atoms at the encoder, so they may round as they like. A Hadamard
codebook works where the residual, or the atoms, are, and never waits for a GPU; a Gaussian one on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ddcm.codec.philox import GRID, normals, words

START = SIGNS = 0xFFFFFFFF  # places in the counter that no step and no atom has
BLOCK = 4  # atoms that are drawn at a time: what fits into a processor's cache is fastest


Indices = Sequence[int] | torch.Tensor


class Book(Protocol):
    """The contract above."""

    @property
    def atoms(self) -> int:
        """K"""

    def correlate(self, window: int, step: int, residual: torch.Tensor) -> torch.Tensor: ...

    def synthesize(self, window: int, step: int, atoms: Indices, weights: Indices) -> torch.Tensor: ...


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
        padded[..., : self.numbers] = residual * self._signs(window, step, residual.device)
        return walsh_hadamard(padded)

    def synthesize(self, window: int, step: int, atoms: Indices, weights: Indices) -> torch.Tensor:
        atoms, weights = torch.as_tensor(atoms), torch.as_tensor(weights)
        chosen = torch.zeros(self.atoms, dtype=torch.int64, device=atoms.device)
        chosen[atoms] = weights
        return unit_power_there(walsh_hadamard(chosen)[: self.numbers] * self._signs(window, step, atoms.device))

    def _signs(self, window: int, step: int, device: torch.device) -> torch.Tensor:
        """int64 (n,) of 1 and -1: 4 kB of random bits, drawn on the CPU and unpacked where they are needed."""
        drawn = words(-(-self.numbers // 32), ([SIGNS], step, window), self.seed)[0].astype("<u4")
        # Without waiting: a copy that blocks would wait for all work of the device.
        packed = torch.from_numpy(drawn.view(np.uint8)).to(device, non_blocking=True)  # little-endian bits
        bits = packed[:, None] >> torch.arange(8, device=device, dtype=torch.uint8) & 1
        return bits.flatten()[: self.numbers].long() * 2 - 1


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
        residual = residual.cpu()
        return torch.cat([residual @ self._draw(window, step, block).float().T for block in blocks], dim=-1) / GRID

    def synthesize(self, window: int, step: int, atoms: Indices, weights: Indices) -> torch.Tensor:
        atoms, weights = (x.tolist() if isinstance(x, torch.Tensor) else x for x in (atoms, weights))
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


def unit_power_there(total: torch.Tensor) -> torch.Tensor:
    """``unit_power`` on the device that has the integers, to the bit, for sums of squares below 2^53: those are exact
    in float64, whose division and root are correctly rounded everywhere. Nothing is asked back."""
    power = (total * total).sum().double()
    scale = torch.where(power > 0, (len(total) / power.clamp(min=1)).sqrt(), 0.0)
    return (total.double() * scale).float()
