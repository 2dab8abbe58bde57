"""The DDCM paper's choice (arXiv 2502.01189, section 3): one atom of K a step, or several by matching pursuit.

With M atoms the noise is grown greedily, z <- (sqrt(g) z + sqrt(1 - g) z_k) / norm, over all atoms and a grid of g in
(0, 1] that C bits name. g = 1 keeps z as it is. With C = 1 the only g is 1, so that further atoms would be paid for
and never heard: C >= 2.
"""

from __future__ import annotations

import math

import torch

from ddcm.codec.bitstream import BitReader, BitWriter
from ddcm.codec.noise_codebooks import Book
from ddcm.codec.turbo import Choice

FIXED = 1 << 8  # weights are integers on this grid, so that their sum is exact


def choose(book: Book, window: int, step: int, residual: torch.Tensor, count: int, bits: int) -> list[tuple[int, int]]:
    """[(atom, level)] of each of ``count`` stages; the level names g, and is unused in the first stage."""
    alone = book.correlate(window, step, residual)
    stages = [(int(alone.argmax()), 0)]
    for _ in range(count - 1):
        noise = book.synthesize(window, step, *weights(stages, bits))
        along, overlap = noise @ residual, book.correlate(window, step, noise) / len(noise)
        grid = torch.tensor([_share(level, bits) for level in range((1 << bits) - 1)])[:, None]  # [levels, 1]
        a, b = grid.sqrt(), (1 - grid).sqrt()
        gains = (a * along + b * alone) / (1 + 2 * a * b * overlap).clamp(min=1e-6).sqrt()  # [levels, K]
        level, atom = divmod(int(gains.argmax()), book.atoms)
        # The last level is g = 1: what comes after it may grow no more either, and says so again.
        stages.append((atom, level) if gains[level, atom] > along else (0, (1 << bits) - 1))
    return stages


def weights(stages: list[tuple[int, int]], bits: int) -> Choice:
    """Atoms and integer weights of the sum; an atom that was taken twice is one with both weights."""
    total: dict[int, float] = {stages[0][0]: 1.0}
    for atom, level in stages[1:]:
        share = _share(level, bits)
        total = {key: value * math.sqrt(share) for key, value in total.items()}
        total[atom] = total.get(atom, 0.0) + math.sqrt(1 - share)
    return list(total), [round(FIXED * value) for value in total.values()]


def _share(level: int, bits: int) -> float:
    """g of a level: even in (0, 1]."""
    return (level + 1) / (1 << bits)


def write(out: BitWriter, stages: list[tuple[int, int]], log2_atoms: int, bits: int) -> None:
    """Fixed fields: the atom, and for all but the first its level."""
    for number, (atom, level) in enumerate(stages):
        out.write(atom, log2_atoms)
        out.write(level, bits if number else 0)


def read(data: BitReader, count: int, log2_atoms: int, bits: int) -> list[tuple[int, int]]:
    """The inverse of ``write``."""
    return [(data.read(log2_atoms), data.read(bits if number else 0)) for number in range(count)]
