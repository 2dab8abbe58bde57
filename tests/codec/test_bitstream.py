"""Bits, sets as numbers, random integers, and the container: formats, so properties and golden digests."""

import hashlib
import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddcm.codec.bitstream import BitReader, BitWriter, rank_subset, subset_bits, unrank_subset
from ddcm.codec.format import MAX_GAIN, MAX_SAMPLES, Stream, pack, unpack
from ddcm.codec.layout import layout, verified, window_bits
from ddcm.codec.philox import GRID, normals, philox, words
from ddcm.codec.schedule import ExplicitSchedule, ParametricSchedule, expand
from ddcm.errors import UserError


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
    assert subset_bits(9, 4) == 7 and subset_bits(5, 5) == 0


def test_large_sets():
    members = sorted(np.random.default_rng(0).choice(32768, 500, replace=False).tolist())
    assert unrank_subset(rank_subset(members), 32768, 500) == members


def test_philox_known_answers():
    """From the authors' own table (Random123, kat_vectors)."""
    assert [f"{int(w):08x}" for w in philox((0, 0, 0, 0), 0)] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    ones = philox((2**32 - 1,) * 4, 2**64 - 1)
    assert [f"{int(w):08x}" for w in ones] == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]


def test_random_numbers_are_the_place_alone():
    together = normals(100, (np.arange(5), 3, 2), 7)
    assert all(np.array_equal(together[i], normals(100, ([i], 3, 2), 7)[0]) for i in range(5))
    assert np.array_equal(together[:, :33], normals(33, (np.arange(5), 3, 2), 7))
    assert np.array_equal(words(9, ([1], 0, 0), 5)[0][:4], words(4, ([1], 0, 0), 5)[0])


def test_normals_are_normal_and_never_drift():
    drawn = normals(1 << 18, ([0], 1, 2), 3)
    unit = drawn / GRID
    assert abs(unit.mean()) < 0.01 and abs(unit.std() - 1) < 0.01 and abs((unit**4).mean() - 3) < 0.1
    assert hashlib.sha256(drawn.astype("<i2").tobytes()).hexdigest()[:16] == "0ef67ba88eb973a6"


digests = st.text("0123456789abcdef", min_size=16, max_size=16)
ends = st.tuples(st.integers(0, 999), st.integers(0, 999)).filter(lambda t: t[0] < t[1])
curves = ends.flatmap(
    lambda t: st.builds(
        ParametricSchedule, st.integers(2, t[1] - t[0] + 1), st.integers(1, 255), st.integers(0, 255),
        st.integers(1, 10**6), st.just(t[1]), st.just(t[0]),
    )
)  # fmt: skip
explicit = st.sets(st.integers(0, 999), min_size=2, max_size=40).flatmap(
    lambda t: st.builds(
        ExplicitSchedule, st.just(tuple(sorted(t, reverse=True))), st.tuples(*[st.integers(0, 2048)] * (len(t) - 1))
    )
)
common = dict(
    backbone=digests, samples=st.integers(1, MAX_SAMPLES), gain=st.integers(-MAX_GAIN, MAX_GAIN),
    lanes=st.integers(1, 64), mean=st.floats(-60000, 60000, width=16), threads=st.integers(1, 64),
    stock_null=st.booleans(),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]), payload=st.binary(max_size=64),
)  # fmt: skip
streams = st.builds(
    Stream, st.just("turbo"), **common, schedule=curves | explicit, seed=st.integers(0, 2**32 - 1),
    log2_atoms=st.integers(1, 20), prompt=st.text(max_size=100), book=st.sampled_from(["hadamard", "gaussian"]),
) | st.builds(
    Stream, st.just("vq"), **common, codebook=digests, atoms=st.integers(2, 2**20), levels=st.integers(1, 64),
)  # fmt: skip


@given(streams)
def test_the_container_round_trips(stream):
    data = pack(stream)
    again = unpack(data)
    assert replace(again, guidance=stream.guidance) == stream and pack(again) == data


@given(streams, st.data())
def test_any_damage_is_refused(stream, data):
    file = bytearray(pack(stream))
    kind = data.draw(st.sampled_from(["flip", "cut", "swap", "add"]))
    at, other = (data.draw(st.integers(0, len(file) - 1)) for _ in range(2))
    if kind == "flip":
        file[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del file[at:]
    elif kind == "add":
        file.insert(at, data.draw(st.integers(0, 255)))
    elif file[at] != file[other]:
        file[at], file[other] = file[other], file[at]
    else:
        file[at] ^= 1
    if bytes(file) != pack(stream):
        with pytest.raises(UserError):
            unpack(bytes(file))


def test_headers_are_small():
    stream = Stream("turbo", "0123456789abcdef", 163840, log2_atoms=15, schedule=ParametricSchedule(30, 32, 8, 700))
    assert len(pack(stream)) < 64


def test_another_version_is_refused_by_name():
    data = bytearray(pack(Stream("vq", "0" * 16, 9, codebook="1" * 16, atoms=2, levels=1)))
    data[4] = 9
    with pytest.raises(UserError, match="version 9"):
        unpack(bytes(data))


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_hostile_headers_end_in_one_line_or_are_bounded(tail):
    """A right checksum over anything: refused, or a layout no larger than the payload has bits for."""
    body = b"ddcm\x01" + tail
    try:
        stream = unpack(body + zlib.crc32(body).to_bytes(4, "little"))
        placed = verified(stream)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert len(placed.starts) <= max(1, 8 * len(stream.payload))
        assert stream.mode == "vq" or len(stream.payload) * 8 >= len(placed.starts) * window_bits(stream)


@given(st.integers(1, 10**7))
def test_windows_cover_everything(samples):
    placed = layout(samples, 160)
    assert placed.starts[0] == 0 and placed.starts[-1] + placed.size == placed.total >= samples / 160
    assert all(start % 4 == 0 for start in placed.starts) and placed.size % 4 == 0 and placed.size <= 1024
    overlaps = [a + placed.size - b for a, b in zip(placed.starts, placed.starts[1:], strict=False)]
    assert all(64 <= overlap <= 80 for overlap in overlaps)


@settings(deadline=None)
@given(curves)
def test_curves_are_schedules(curve):
    made = expand(curve)
    assert len(made.timesteps) == curve.steps and sum(made.atoms) == curve.total and min(made.atoms) >= 0
    assert made.timesteps[-1] == curve.last and all(
        a > b for a, b in zip(made.timesteps, made.timesteps[1:], strict=False)
    )
    assert made.timesteps[0] == curve.first
