"""Bit writer and reader, sets as numbers, random integers: properties, known answers and golden digests."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddcm.codec.bitstream import (
    BitReader,
    BitWriter,
    rank_subset,
    rank_subsets,
    subset_bits,
    unrank_subset,
    unrank_subsets,
)
from ddcm.codec.philox import GRID, philox, random_normals, random_words


@given(st.lists(st.integers(0, 70).flatmap(lambda w: st.tuples(st.just(w), st.integers(0, max(0, 2**w - 1))))))
def test_bits_round_trip(fields):
    out = BitWriter()
    for width, value in fields:
        out.write(value, width)
    data = out.getvalue()
    assert len(data) == -(-sum(width for width, _ in fields) // 8)
    reader = BitReader(data)
    assert [reader.read(width) for width, _ in fields] == [value for _, value in fields]
    with pytest.raises(ValueError):
        reader.read(8)


@given(st.integers(1, 14).flatmap(lambda k: st.tuples(st.just(2**k), st.sets(st.integers(0, 2**k - 1), max_size=200))))
def test_sets_round_trip(case):
    universe, members = case[0], sorted(case[1])
    rank = rank_subset(members)
    assert rank < math.comb(universe, len(members))
    assert unrank_subset(rank, universe, len(members)) == members


def test_ranks_are_all_the_numbers_there_are():
    assert sorted(rank_subset(unrank_subset(r, 9, 4)) for r in range(math.comb(9, 4))) == list(range(math.comb(9, 4)))
    with pytest.raises(ValueError):
        unrank_subset(math.comb(9, 4), 9, 4)
    assert subset_bits(9, (4,)) == 7 and subset_bits(5, (5,)) == 0


@given(st.data())
def test_subsets_round_trip_as_one_rank(data):
    universe, sizes = data.draw(st.integers(1, 64)), data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=9))
    sizes = tuple(min(size, universe) for size in sizes)
    numbers = st.integers(0, universe - 1)
    subsets = [sorted(data.draw(st.sets(numbers, min_size=n, max_size=n))) for n in sizes]
    rank, bits = rank_subsets(subsets, universe), subset_bits(universe, sizes)
    assert rank < 1 << bits and unrank_subsets(rank, universe, sizes) == subsets
    total = math.prod(math.comb(universe, size) for size in sizes)
    assert unrank_subsets(total - 1, universe, sizes) and total <= 1 << bits
    with pytest.raises(ValueError):
        unrank_subsets(total, universe, sizes)


def test_large_sets():
    members = sorted(np.random.default_rng(0).choice(32768, 500, replace=False).tolist())
    assert unrank_subset(rank_subset(members), 32768, 500) == members


def test_philox_known_answers():
    """From the authors' own table (Random123, kat_vectors)."""
    assert [f"{int(w):08x}" for w in philox((0, 0, 0, 0), 0)] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    ones = philox((2**32 - 1,) * 4, 2**64 - 1)
    assert [f"{int(w):08x}" for w in ones] == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]


def test_random_numbers_are_the_place_alone():
    together = random_normals(100, (np.arange(5), 3, 2), 7)
    assert all(np.array_equal(together[i], random_normals(100, ([i], 3, 2), 7)[0]) for i in range(5))
    assert np.array_equal(together[:, :33], random_normals(33, (np.arange(5), 3, 2), 7))
    assert np.array_equal(random_words(9, ([1], 0, 0), 5)[0][:4], random_words(4, ([1], 0, 0), 5)[0])


def test_normals_are_normal_and_never_drift():
    drawn = random_normals(1 << 18, ([0], 1, 2), 3)
    unit = drawn / GRID
    assert abs(unit.mean()) < 0.01 and abs(unit.std() - 1) < 0.01 and abs((unit**4).mean() - 3) < 0.1
    assert hashlib.sha256(drawn.astype("<i2").tobytes()).hexdigest()[:16] == "0ef67ba88eb973a6"
