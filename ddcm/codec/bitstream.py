"""Bit writer and reader, and sets as numbers. Integers only, so that a file means the same on every machine."""

import functools
import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise


class BitWriter:
    """Writes numbers of any width, the most significant bit first; the last byte is padded with zeros."""

    def __init__(self):
        self._bytes = bytearray()
        self._rest, self._width = 0, 0  # bits that do not fill a byte yet

    def write(self, value: int, width: int) -> None:
        if not 0 <= value < 1 << width:
            raise ValueError(f"{value} does not fit into {width} bits")
        bits, width = self._rest << width | value, self._width + width
        self._width = width % 8
        self._bytes += (bits >> self._width).to_bytes(width // 8, "big")
        self._rest = bits & ((1 << self._width) - 1)

    def getvalue(self) -> bytes:
        rest = bytes([self._rest << (8 - self._width)]) if self._width else b""
        return bytes(self._bytes) + rest


class BitReader:
    """Reads what ``BitWriter`` wrote, from bit ``start`` on. Raises ValueError: reading beyond the end."""

    def __init__(self, data: bytes, start: int = 0):
        self._data, self._position = data, start

    def read(self, width: int) -> int:
        stop = self._position + width
        if stop > 8 * len(self._data):
            raise ValueError("the payload ends too early")
        piece = int.from_bytes(self._data[self._position // 8 : -(-stop // 8)], "big")
        self._position = stop
        return piece >> -stop % 8 & ((1 << width) - 1)


def split_evenly(count: int, parts: int) -> tuple[int, ...]:
    """Sizes of so many parts whose sum is ``count``; the first ones have one more."""
    return tuple(count // parts + (part < count % parts) for part in range(parts))


@functools.lru_cache(maxsize=4096)
def subset_bits(universe: int, sizes: tuple[int, ...]) -> int:
    """Bits of the rank of one choice of subsets, one of each size."""
    return (math.prod(math.comb(universe, size) for size in sizes) - 1).bit_length()


def rank_subsets(subsets: Sequence[Sequence[int]], universe: int) -> int:
    """The rank of a choice of subsets of range(universe) among all of the same sizes."""
    rank = 0
    for members in subsets:
        rank = rank * math.comb(universe, len(members)) + rank_subset(members)
    return rank


def unrank_subsets(rank: int, universe: int, sizes: Sequence[int]) -> list[list[int]]:
    """The inverse of ``rank_subsets``. Raises ValueError: the rank is not that of a choice."""
    subsets = []
    for size in reversed(sizes[1:]):
        rank, own = divmod(rank, math.comb(universe, size))
        subsets.append(unrank_subset(own, universe, size))
    subsets.append(unrank_subset(rank, universe, sizes[0]))
    return subsets[::-1]


def rank_subset(members: Sequence[int]) -> int:
    """The rank of a set {c_1 < ... < c_M} of numbers from 0 on among all M-subsets: sum of C(c_i, i). This is the
    combinatorial number system; it needs no table and no bound on the universe. M calls of ``math.comb``."""
    if any(a >= b for a, b in pairwise(members)) or (members and members[0] < 0):
        raise ValueError("members of a set must rise strictly from 0 on")
    return sum(math.comb(member, i) for i, member in enumerate(members, 1))


def unrank_subset(rank: int, universe: int, size: int) -> list[int]:
    """The ``size``-subset of range(universe) at ``rank``; the inverse of ``rank_subset``. The largest c with C(c, i) <=
    rank is estimated in floating point, then made exact with integers: one call of ``math.comb`` and a few
    multiplications for each member. Raises ValueError: the rank is not that of a subset."""
    if not 0 <= rank < math.comb(universe, size):
        raise ValueError(f"rank out of range for {size} of {universe}")
    members, above = [], universe
    for i in range(size, 0, -1):
        log = math.log(max(rank, 1)) + math.lgamma(i + 1)
        c = i - 1 + bisect_right(range(i, above), log, key=lambda c: math.lgamma(c + 1) - math.lgamma(c - i + 1))
        count = math.comb(c, i)
        while count > rank:  # C(c - 1, i) = C(c, i) (c - i) / c
            count, c = count * (c - i) // c, c - 1
        while c + 1 < above:  # C(c + 1, i) = C(c, i) (c + 1) / (c + 1 - i)
            more = count * (c + 1) // (c + 1 - i) if c >= i else int(c + 1 == i)
            if more > rank:
                break
            count, c = more, c + 1
        members.append(c)
        rank, above = rank - count, c
    return members[::-1]
