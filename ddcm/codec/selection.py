"""Which atoms make the noise of a step, and their bits: what turbo and classic differ in.

turbo: the atoms most correlated with the residual, with signs, in closed form (Turbo-DDCM, arXiv 2511.06424, section
3). There, M atoms are the largest of one basis. Here they are spread over the bases of the codebook, where possible one
of each, as in sparse superposition codes (Venkataramanan, Sarkar and Tatikonda, arXiv 1212.2125): the largest of K
correlations is worth more for its bits than the second and the third, and atoms of different bases are next to
orthogonal.

classic: one atom of K a step, or several by matching pursuit (DDCM, arXiv 2502.01189, section 3). With M atoms the
noise is grown greedily, z <- (sqrt(g) z + sqrt(1 - g) z_k) / norm, over all atoms and a grid of g in (0, 1] that C bits
name. g = 1 keeps z as it is. With C = 1 the only g is 1: further atoms would cost bits and change nothing, so C >= 2.
"""

import math
from itertools import accumulate, pairwise
from typing import Any

import torch

from ddcm.codec.bitstream import BitReader, BitWriter, rank_subsets, subset_bits, unrank_subsets
from ddcm.codec.header import Header
from ddcm.codec.noise_codebooks import Indices, NoiseCodebook

FIXED = 1 << 8  # weights are integers on this grid, so that their sum is exact
Choice = tuple[Indices, Indices]  # (atoms, integer weights): the noise of a step is their weighted sum
Stages = list[tuple[int, int]]  # (atom, level) of each stage; the level names g, and is 0 and unused in the first one
Symbol = Any  # what is written for a step: the ``Choice`` of turbo, the ``Stages`` of classic


def choose_largest(correlations: torch.Tensor, count: int) -> Choice:
    """Of correlations (B, K), the ``count`` atoms that are largest in magnitude in their bases, which have the same
    number of them but for one; basis after basis in rising order, weighted by their signs. Of the orthogonal atoms of
    one basis no other sum is nearer to the residual."""
    bases, size = correlations.shape
    each, more = divmod(count, bases)
    atoms, signs = [], []
    for begin, end, number in ((0, more, each + 1), (more, bases, each)):
        if begin == end:
            continue
        some = correlations[begin:end]
        best = some.abs().topk(number, dim=1).indices.sort(dim=1).values
        first = size * torch.arange(begin, end, device=best.device)[:, None]
        atoms.append((best + first).flatten())
        signs.append(torch.where(some.gather(1, best) < 0, -1, 1).flatten())
    return torch.cat(atoms), torch.cat(signs)


def pursue(codebook: NoiseCodebook, window: int, step: int, residual: torch.Tensor, count: int, bits: int) -> Stages:
    """Matching pursuit of the residual (n,) in ``count`` stages."""
    alone = codebook.correlate(window, step, residual)[0]
    stages = [(int(alone.argmax()), 0)]
    for _ in range(count - 1):
        noise = codebook.synthesize(window, step, *weigh_stages(stages, bits))
        along, overlap = noise @ residual, codebook.correlate(window, step, noise)[0] / len(noise)
        grid = torch.tensor([_share(level, bits) for level in range((1 << bits) - 1)])[:, None]  # [levels, 1]
        a, b = grid.sqrt(), (1 - grid).sqrt()
        gains = (a * along + b * alone) / (1 + 2 * a * b * overlap).clamp(min=1e-6).sqrt()  # [levels, K]
        level, atom = divmod(int(gains.argmax()), codebook.atoms)
        # The last level is g = 1. Once no atom improves the noise, no later stage does, and each writes g = 1.
        stages.append((atom, level) if gains[level, atom] > along else (0, (1 << bits) - 1))
    return stages


def weigh_stages(stages: Stages, bits: int) -> Choice:
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


def to_choice(symbol: Symbol, header: Header) -> Choice:
    return weigh_stages(symbol, header.coefficient_bits) if header.mode == "classic" else symbol


def write(writer: BitWriter, symbol: Symbol, header: Header) -> None:
    """classic: the atom, and for each stage but the first its level, in fields of fixed width. turbo: the sets of all
    bases as one rank, then a bit for each sign: for a set of many atoms about 40 % less than their numbers."""
    if header.mode == "classic":
        for number, (atom, level) in enumerate(symbol):
            writer.write(atom, header.log2_atoms)
            writer.write(level, header.coefficient_bits if number else 0)
        return
    atoms, signs = (torch.as_tensor(x).tolist() for x in symbol)
    universe, sizes = 1 << header.log2_atoms, header.split(len(atoms))
    ends = list(accumulate(sizes, initial=0))
    subsets = [[atom % universe for atom in atoms[a:b]] for a, b in pairwise(ends)]
    writer.write(rank_subsets(subsets, universe), subset_bits(universe, sizes))
    writer.write(sum((sign < 0) << i for i, sign in enumerate(signs)), len(atoms))


def read(reader: BitReader, count: int, header: Header) -> Symbol:
    """The inverse of ``write`` for ``count`` atoms. Raises ValueError: a rank that no choice has."""
    log2_atoms, bits = header.log2_atoms, header.coefficient_bits
    if header.mode == "classic":
        return [(reader.read(log2_atoms), reader.read(bits if number else 0)) for number in range(count)]
    universe, sizes = 1 << log2_atoms, header.split(count)
    subsets = unrank_subsets(reader.read(subset_bits(universe, sizes)), universe, sizes)
    atoms = [basis * universe + atom for basis, subset in enumerate(subsets) for atom in subset]
    signs = reader.read(count)
    return atoms, [-1 if signs >> i & 1 else 1 for i in range(count)]
