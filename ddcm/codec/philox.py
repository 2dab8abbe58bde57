"""Random numbers made of integers: the same on every device, in every order, for every batch size.

A counter-based generator has no state: a number is a function of its counter, so any part of any atom can be drawn
alone.
"""

import functools
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

GRID = 1 << 10  # normal numbers are integers on a grid of 1 / 1024


def philox(counter: tuple, key: int) -> np.ndarray:
    """Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): uint32 (4, *shape).
    ``counter`` is four numbers or arrays in [0, 2^32) that broadcast together to ``shape``; ``key`` is in [0, 2^64)."""
    low32, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    c0, c1, c2, c3 = (c.astype(np.uint64) for c in np.broadcast_arrays(*map(np.asarray, counter)))
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        left, right = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c2 = (right >> shift) ^ c1 ^ np.uint64(k0), (left >> shift) ^ c3 ^ np.uint64(k1)
        c1, c3 = right & low32, left & low32
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


@functools.cache
def _quantiles() -> np.ndarray:
    """int16 (65536,): the normal distribution's quantiles at (i + 0.5) / 65536, on the grid; sorted, symmetric."""
    inverse = NormalDist().inv_cdf
    upper = np.array([round(inverse((i + 0.5) / 65536) * GRID) for i in range(32768, 65536)], np.int16)
    return np.concatenate([-upper[::-1], upper])


def random_words(count: int, counter: tuple[ArrayLike, int, int], key: int) -> np.ndarray:
    """uint32 (rows, count): rows of random words; ``counter`` is (row numbers (rows,), and two more numbers)."""
    rows, second, third = counter
    blocks = -(-count // 4)
    drawn = philox((np.arange(blocks), np.asarray(rows)[:, None], second, third), key)  # [4, rows, blocks]
    return np.moveaxis(drawn, 0, -1).reshape(len(np.atleast_1d(rows)), 4 * blocks)[:, :count]


def random_normals(count: int, counter: tuple[ArrayLike, int, int], key: int) -> np.ndarray:
    """int16 (rows, count): rows of unit normal numbers times ``GRID``; ``counter`` as for ``random_words``."""
    drawn = random_words(-(-count // 2), counter, key)
    halves = np.stack([drawn & np.uint32(0xFFFF), drawn >> np.uint32(16)], axis=-1).reshape(len(drawn), -1)
    return _quantiles()[halves[:, :count]]
