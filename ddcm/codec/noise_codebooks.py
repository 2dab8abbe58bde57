"""Noise codebooks: K atoms of n numbers for each (window, step), fixed by a seed and never in memory as a whole.

One contract, two codebooks:

    correlate(window, step, residual (..., n))              -> (..., K) float32, the inner products with each atom
    synthesize(window, step, atoms (M,), weights (M,))      -> (n,) float32, the weighted sum, scaled to unit power

Sums are of integers, and the scale is computed in float64 from an exact sum of squares: the noise is the same to the
last bit on every machine. Correlations only choose atoms at the encoder, so their rounding does not matter. A Hadamard
codebook works on the device of the residual, or of the atoms, and never waits for a GPU; a Gaussian one on the CPU.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ddcm.codec.header import Header
from ddcm.codec.philox import GRID, random_normals, random_words

START = SIGNS = 0xFFFFFFFF  # values of the counter that no step and no atom has
BLOCK = 4  # atoms drawn at a time; fastest where a block fits into the processor's cache
Indices = Sequence[int] | torch.Tensor


@dataclass(frozen=True)
class NoiseCodebook(ABC):
    """The contract above: n is ``size``, K is ``atoms``."""

    seed: int
    size: int
    log2_atoms: int

    @property
    def atoms(self) -> int:
        return 1 << self.log2_atoms

    @abstractmethod
    def correlate(self, window: int, step: int, residual: torch.Tensor) -> torch.Tensor: ...
    @abstractmethod
    def synthesize(self, window: int, step: int, atoms: Indices, weights: Indices) -> torch.Tensor: ...


@dataclass(frozen=True)
class Hadamard(NoiseCodebook):
    """Rows of H S: H the Hadamard matrix of size N = 2^log2_atoms >= n, S random signs of the (window, step). The first
    n columns of it are used. Where n = N the atoms are orthogonal, so that the best M atoms are the M largest
    correlations, exactly. A fast Walsh-Hadamard transform takes N log2 N additions instead of K n multiplications."""

    def correlate(self, window: int, step: int, residual: torch.Tensor) -> torch.Tensor:
        padded = residual.new_zeros(*residual.shape[:-1], self.atoms)
        padded[..., : self.size] = residual * self._signs(window, step, residual.device)
        return walsh_hadamard(padded)

    def synthesize(self, window: int, step: int, atoms: Indices, weights: Indices) -> torch.Tensor:
        atoms, weights = torch.as_tensor(atoms), torch.as_tensor(weights)
        chosen = torch.zeros(self.atoms, dtype=torch.int64, device=atoms.device)
        chosen[atoms] = weights
        return normalise(walsh_hadamard(chosen)[: self.size] * self._signs(window, step, atoms.device))

    def _signs(self, window: int, step: int, device: torch.device) -> torch.Tensor:
        """int64 (n,) of 1 and -1: 4 kB of random bits, drawn on the CPU and unpacked where they are needed."""
        drawn = random_words(-(-self.size // 32), ([SIGNS], step, window), self.seed)[0].astype("<u4")
        # Without waiting: a copy that blocks would wait for all work of the device.
        packed = torch.from_numpy(drawn.view(np.uint8)).to(device, non_blocking=True)  # little-endian bits
        bits = packed[:, None] >> torch.arange(8, device=device, dtype=torch.uint8) & 1
        return bits.flatten()[: self.size].long() * 2 - 1


@dataclass(frozen=True)
class Gaussian(NoiseCodebook):
    """Independent unit normal atoms, as in the papers; K = 2^log2_atoms. Each can be made alone."""

    def correlate(self, window: int, step: int, residual: torch.Tensor) -> torch.Tensor:
        residual, blocks = residual.cpu(), torch.arange(self.atoms).split(BLOCK)
        return torch.cat([residual @ self._draw(window, step, block).float().T for block in blocks], dim=-1) / GRID

    def synthesize(self, window: int, step: int, atoms: Indices, weights: Indices) -> torch.Tensor:
        total = torch.zeros(self.size, dtype=torch.int64)
        atoms, weights = (torch.as_tensor(x).cpu().split(BLOCK) for x in (atoms, weights))
        for block, factors in zip(atoms, weights, strict=True):
            total += (self._draw(window, step, block).long() * factors[:, None]).sum(dim=0)
        return normalise(total)

    def _draw(self, window: int, step: int, atoms: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(random_normals(self.size, (atoms.numpy(), step, window), self.seed))


NOISE_CODEBOOKS: dict[str, type[NoiseCodebook]] = {"hadamard": Hadamard, "gaussian": Gaussian}


def noise_codebook(header: Header) -> NoiseCodebook:
    """The noise codebook of a turbo or classic file."""
    return NOISE_CODEBOOKS[header.book](header.seed, header.latent_size, header.log2_atoms)


def start_noise(seed: int, window: int, size: int) -> torch.Tensor:
    """(n,) float32: the unit normal noise that a window starts from. Part of the seed, it costs no bits."""
    return torch.from_numpy(random_normals(size, ([0], START, window), seed)[0].astype(np.float32) / GRID)


def walsh_hadamard(x: torch.Tensor) -> torch.Tensor:
    """(..., 2^k) -> the product with the Hadamard matrix in Sylvester's order, unscaled; exact on integers."""
    size = x.shape[-1]
    for half in (1 << k for k in range(size.bit_length() - 1)):
        a, b = x.reshape(*x.shape[:-1], -1, 2, half).unbind(-2)
        x = torch.stack([a + b, a - b], dim=-2).reshape(x.shape)
    return x


def normalise(total: torch.Tensor) -> torch.Tensor:
    """Integers (n,) -> float32 (n,) with mean square 1, without waiting for their device. All zeros stay zeros. The
    same bits everywhere: sums of squares below 2^53 are exact in float64, whose division and root round correctly."""
    power = (total * total).sum().double()
    scale = torch.where(power > 0, (len(total) / power.clamp(min=1)).sqrt(), 0.0)
    return (total.double() * scale).float()
