"""Noise codebooks: K atoms of n numbers for each (window, step), fixed by a seed and never in memory as a whole.

One contract, two codebooks:

    correlate(window, step, residual (..., n), M)           -> (..., B, K) float32, the inner products with each atom
    synthesize(window, step, atoms (M,), weights (M,))      -> (n,) float32, the weighted sum, scaled to unit power

A Hadamard codebook has one basis of K atoms or several. A step of M atoms uses the first B of them, as many as there
are but at most M, and atom k of basis b has the number b K + k. A Gaussian codebook has K atoms and no bases: B is 1.

Sums are of integers, and the scale is computed in float64 from an exact sum of squares: the noise is the same to the
last bit on every machine. Correlations only choose atoms at the encoder, so their rounding does not matter. A Hadamard
codebook works on the device of the residual, or of the atoms, and never waits for a GPU; a Gaussian one on the CPU.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ddcm.codec.header import Header
from ddcm.codec.philox import GRID, random_normals, random_words

START = SIGNS = 0xFFFFFFFF  # values of the counter that no step and no atom has; of basis b it is SIGNS - b
BLOCK = 4  # gaussian atoms drawn at a time; fastest where a block fits into the processor's cache
ROWS = 64  # hadamard atoms added at a time
Indices = Sequence[int] | torch.Tensor


@dataclass(frozen=True)
class NoiseCodebook(ABC):
    """The contract above: n is ``size``, K is ``atoms``."""

    seed: int
    size: int
    log2_atoms: int
    bases: int = 1

    @property
    def atoms(self) -> int:
        return 1 << self.log2_atoms

    @abstractmethod
    def correlate(self, window: int, step: int, residual: torch.Tensor, count: int = 1) -> torch.Tensor: ...
    @abstractmethod
    def synthesize(self, window: int, step: int, atoms: Indices, weights: Indices) -> torch.Tensor: ...


@dataclass(frozen=True)
class Hadamard(NoiseCodebook):
    """Basis b has the rows of H S_b: H the Hadamard matrix of size K = 2^log2_atoms >= n, S_b random signs of the
    (window, step). The first n columns are used. Where n = K the atoms of a basis are orthogonal, so that its best M
    atoms are the M largest correlations, exactly. H is the Kronecker product of two small matrices of its kind: K
    correlations take two products with matrices whose sides are near the root of K."""

    def correlate(self, window: int, step: int, residual: torch.Tensor, count: int = 1) -> torch.Tensor:
        signs = self._signs(window, step, count, residual.device)
        padded = residual.new_zeros(*residual.shape[:-1], len(signs), self.atoms)
        padded[..., : self.size] = residual[..., None, :] * signs
        left, right = (x.to(residual) for x in self._factors(residual.device))
        return (left @ padded.unflatten(-1, (len(left), len(right))) @ right).flatten(-2)

    def synthesize(self, window: int, step: int, atoms: Indices, weights: Indices) -> torch.Tensor:
        atoms, weights = torch.as_tensor(atoms), torch.as_tensor(weights)
        left, right = self._factors(atoms.device)
        signs = self._signs(window, step, len(atoms), atoms.device)
        total = torch.zeros(self.size, device=atoms.device, dtype=torch.float32)  # integers below 2^24: exact
        for some, factors in zip(atoms.split(ROWS), weights.float().split(ROWS), strict=True):
            basis, atom = some // self.atoms, some % self.atoms
            weighted = left[atom // len(right)] * factors[:, None]
            rows = weighted[:, :, None] * right[atom % len(right), None, :]
            total += (rows.flatten(1)[:, : self.size] * signs[basis]).sum(dim=0)
        return normalise(total.long())

    def _signs(self, window: int, step: int, count: int, device: torch.device) -> torch.Tensor:
        """int8 (B, n) of 1 and -1, of the bases that ``count`` atoms use: n bits each, drawn on the CPU and unpacked
        where they are needed."""
        rows = SIGNS - np.arange(min(count, self.bases), dtype=np.uint32)
        drawn = random_words(-(-self.size // 32), (rows, step, window), self.seed).astype("<u4", order="C")
        # Without waiting: a copy that blocks would wait for all work of the device.
        packed = torch.from_numpy(drawn.view(np.uint8)).to(device, non_blocking=True)  # little-endian bits
        bits = packed[..., None] >> torch.arange(8, device=device, dtype=torch.uint8) & 1
        return bits.flatten(1)[:, : self.size].to(torch.int8) * 2 - 1

    def _factors(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        half = self.log2_atoms // 2
        return hadamard_matrix(half, device), hadamard_matrix(self.log2_atoms - half, device)


@dataclass(frozen=True)
class Gaussian(NoiseCodebook):
    """Independent unit normal atoms, as in the papers; K = 2^log2_atoms. Each can be made alone."""

    def correlate(self, window: int, step: int, residual: torch.Tensor, count: int = 1) -> torch.Tensor:
        residual, blocks = residual.cpu(), torch.arange(self.atoms).split(BLOCK)
        products = [residual @ self._draw(window, step, block).float().T for block in blocks]
        return torch.cat(products, dim=-1)[..., None, :] / GRID

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
    return NOISE_CODEBOOKS[header.book](header.seed, header.latent_size, header.log2_atoms, header.bases)


def start_noise(seed: int, window: int, size: int) -> torch.Tensor:
    """(n,) float32: the unit normal noise that a window starts from. Part of the seed, it costs no bits."""
    return torch.from_numpy(random_normals(size, ([0], START, window), seed)[0].astype(np.float32) / GRID)


@functools.lru_cache(maxsize=64)
def hadamard_matrix(log2_size: int, device: torch.device) -> torch.Tensor:
    """float32 (2^k, 2^k) in Sylvester's order, unscaled."""
    matrix = torch.ones(1, 1, device=device, dtype=torch.float32)
    for _ in range(log2_size):
        matrix = torch.cat([torch.cat([matrix, matrix], dim=1), torch.cat([matrix, -matrix], dim=1)])
    return matrix


def normalise(total: torch.Tensor) -> torch.Tensor:
    """Integers (n,) -> float32 (n,) with mean square 1, without waiting for their device. All zeros stay zeros. The
    same bits everywhere: sums of squares below 2^53 are exact in float64, whose division and root round correctly."""
    power = (total * total).sum().double()
    scale = torch.where(power > 0, (len(total) / power.clamp(min=1)).sqrt(), 0.0)
    return (total.double() * scale).float()
