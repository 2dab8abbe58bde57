"""Turbo-DDCM's choice (arXiv 2511.06424, section 3): the M atoms most correlated with the residual, with signs, in
closed form."""

from __future__ import annotations

import torch

from ddcm.codec.bitstream import BitReader, BitWriter, rank_subset, subset_bits, unrank_subset
from ddcm.codec.noise_codebooks import Indices

Choice = tuple[Indices, Indices]  # (atoms, integer weights): the noise of a step is their weighted sum.


def choose(correlations: torch.Tensor, count: int) -> Choice:
    """The ``count`` atoms with the largest correlations (K,) in magnitude, in rising order, weighted by their signs.

    Of orthogonal atoms no other sum is nearer to the residual.
    """
    best = correlations.abs().topk(count).indices.sort().values
    return best, torch.where(correlations[best] < 0, -1, 1)


def weights(choice: Choice, bits: int = 0) -> Choice:
    """The symbol that is written is the choice itself; it has no coefficients of some bits."""
    return choice


def write(writer: BitWriter, choice: Choice, log2_atoms: int, bits: int = 0) -> None:
    """The set as its rank among all sets, then a bit for each sign: about 40 % less than M numbers of an atom."""
    atoms, signs = (torch.as_tensor(x).tolist() for x in choice)
    writer.write(rank_subset(atoms), subset_bits(1 << log2_atoms, len(atoms)))
    writer.write(sum((sign < 0) << i for i, sign in enumerate(signs)), len(atoms))


def read(reader: BitReader, count: int, log2_atoms: int, bits: int = 0) -> Choice:
    """The inverse of ``write``. Raises ValueError: a rank that no set has."""
    rank = reader.read(subset_bits(1 << log2_atoms, count))
    atoms, signs = unrank_subset(rank, 1 << log2_atoms, count), reader.read(count)
    return atoms, [-1 if signs >> i & 1 else 1 for i in range(count)]
