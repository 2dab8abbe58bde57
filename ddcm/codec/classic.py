"""The DDCM paper's choice (arXiv 2502.01189, section 3): one atom of K a step, or several by matching pursuit.

With M atoms the noise is grown greedily, z <- (sqrt(g) z + sqrt(1 - g) z_k) / norm, over all atoms and a grid of g in
(0, 1] that C bits name. g = 1 keeps z as it is. With C = 1 the only g is 1, so that further atoms would cost bits and
change nothing: C >= 2.
"""

from __future__ import annotations

import math

import torch

from ddcm.codec.bitstream import BitReader, BitWriter
from ddcm.codec.noise_codebooks import NoiseCodebook
from ddcm.codec.turbo import Choice

FIXED = 1 << 8  # weights are integers on this grid, so that their sum is exact
Stages = list[tuple[int, int]]
"""(atom, level) of each stage; the level names g, and is 0 and unused in the first stage."""


def choose(codebook: NoiseCodebook, window: int, step: int, residual: torch.Tensor, count: int, bits: int) -> Stages:
    """Matching pursuit of the residual (n,) in ``count`` stages."""
    alone = codebook.correlate(window, step, residual)
    stages = [(int(alone.argmax()), 0)]
    for _ in range(count - 1):
        noise = codebook.synthesize(window, step, *weights(stages, bits))
        along, overlap = noise @ residual, codebook.correlate(window, step, noise) / len(noise)
        grid = torch.tensor([_share(level, bits) for level in range((1 << bits) - 1)])[:, None]  # [levels, 1]
        a, b = grid.sqrt(), (1 - grid).sqrt()
        gains = (a * along + b * alone) / (1 + 2 * a * b * overlap).clamp(min=1e-6).sqrt()  # [levels, K]
        level, atom = divmod(int(gains.argmax()), codebook.atoms)
        # The last level is g = 1. Once no atom improves the noise, no later stage does, and each writes g = 1.
        stages.append((atom, level) if gains[level, atom] > along else (0, (1 << bits) - 1))
    return stages


def weights(stages: Stages, bits: int) -> Choice:
    """Atoms and integer weights of the sum; an atom that was taken twice appears once, with both weights."""
    total: dict[int, float] = {stages[0][0]: 1.0}
    for atom, level in stages[1:]:
        share = _share(level, bits)
        total = {key: value * math.sqrt(share) for key, value in total.items()}
        total[atom] = total.get(atom, 0.0) + math.sqrt(1 - share)
    return list(total), [round(FIXED * value) for value in total.values()]


def _share(level: int, bits: int) -> float:
    """g of a level: evenly spaced in (0, 1]."""
    return (level + 1) / (1 << bits)


def write(writer: BitWriter, stages: Stages, log2_atoms: int, bits: int) -> None:
    """Fields of fixed width: the atom, and for each stage but the first its level."""
    for number, (atom, level) in enumerate(stages):
        writer.write(atom, log2_atoms)
        writer.write(level, bits if number else 0)


def read(reader: BitReader, count: int, log2_atoms: int, bits: int) -> Stages:
    """The inverse of ``write``."""
    return [(reader.read(log2_atoms), reader.read(bits if number else 0)) for number in range(count)]
