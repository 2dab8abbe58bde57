"""The ``.ddcm`` format and what its header stands for: round trips, and any damage refused."""

import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddcm.codec.codec_settings import BASES
from ddcm.codec.format import VERSION, pack, unpack
from ddcm.codec.header import DIGITS, MAX_GAIN, MAX_SAMPLES, Header, ceil_log2, validate
from ddcm.codec.step_schedule import ExplicitSchedule, ParametricSchedule, expand
from ddcm.errors import UserError

digests = st.text("0123456789abcdef", min_size=DIGITS, max_size=DIGITS)
ends = st.tuples(st.integers(0, 999), st.integers(0, 999)).filter(lambda t: t[0] < t[1])
parametric = ends.flatmap(
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
    mean=st.floats(-60000, 60000, width=16),
    stock_null=st.booleans(),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
)  # fmt: skip
any_headers = st.builds(
    Header, st.sampled_from(["turbo", "classic"]), **common, schedule=parametric | explicit,
    seed=st.integers(0, 2**32 - 1),
    log2_atoms=st.integers(1, 20), cache_interval=st.integers(1, 255), coefficient_bits=st.integers(2, 8),
    prompt=st.text(max_size=100), book=st.sampled_from(["hadamard", "gaussian"]), bases=st.sampled_from(BASES),
) | st.builds(
    Header, st.just("vq"), **common, codebook=digests, atoms=st.integers(2, 2**20), levels=st.integers(1, 64),
    code_model=st.integers(0, 255),
) | st.builds(
    Header, st.just("hybrid"), **common, schedule=parametric | explicit, log2_atoms=st.integers(1, 20),
    bases=st.sampled_from(BASES),
    codebook=digests, atoms=st.integers(2, 2**20), levels=st.integers(1, 32), first_level=st.integers(0, 32),
    code_model=st.integers(0, 255),
)  # fmt: skip


def make_valid(header: Header) -> Header:
    """With the size of a hadamard codebook that follows from the windows, coefficients in mode classic alone, and
    several bases only where there can be."""
    if header.mode == "classic" or header.book == "gaussian":
        header = replace(header, bases=1)
    if header.mode != "vq" and header.book == "hadamard":
        header = replace(header, log2_atoms=ceil_log2(header.latent_size))
    return header if header.mode == "classic" else replace(header, coefficient_bits=0)


headers = any_headers.map(make_valid)
payloads = st.binary(max_size=64)


@given(headers, payloads)
def test_the_format_round_trips(header, payload):
    data = pack(header, payload)
    header_again, payload_again = unpack(data)
    assert replace(header_again, guidance=header.guidance) == header and payload_again == payload
    assert pack(header_again, payload) == data


@given(headers, payloads, st.data())
def test_any_damage_is_refused(header, payload, data):
    file = bytearray(pack(header, payload))
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
    if bytes(file) != pack(header, payload):
        with pytest.raises(UserError):
            unpack(bytes(file))


def test_headers_are_small():
    header = Header("turbo", "01234567", 163840, log2_atoms=15, schedule=ParametricSchedule(30, 32, 8, 700))
    assert len(pack(header, b"")) == 30


def test_a_noise_codebook_of_another_size_than_the_windows_is_refused():
    header = Header("turbo", "01234567", 163840, log2_atoms=14, schedule=ParametricSchedule(30, 32, 8, 700))
    with pytest.raises(UserError, match="its noise codebook does not fit"):
        pack(header, b"")


@pytest.mark.parametrize(
    "fields",
    [dict(bases=3), dict(bases=256), dict(book="gaussian", bases=2), dict(mode="classic", coefficient_bits=3, bases=2)],
)
def test_bases_that_no_codebook_has_are_refused(fields):
    header = Header("turbo", "01234567", 163840, log2_atoms=15, schedule=ParametricSchedule(30, 32, 8, 700))
    with pytest.raises(UserError, match="bases is out of bounds"):
        pack(replace(header, **fields), b"")


def test_files_before_version_6_have_one_basis():
    header = Header("turbo", "01234567", 163840, log2_atoms=15, schedule=ParametricSchedule(30, 32, 8, 700), bases=8)
    body = bytearray(pack(header, b""))[:-4]
    body[4] = 5
    with pytest.raises(UserError, match="unknown flags"):
        unpack(bytes(body) + zlib.crc32(body).to_bytes(4, "little"))


def test_another_version_is_refused_by_name():
    data = bytearray(pack(Header("vq", "0" * DIGITS, 9, codebook="1" * DIGITS, atoms=2, levels=1), b""))
    data[4] = 9
    with pytest.raises(UserError, match="version 9"):
        unpack(bytes(data))


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_hostile_headers_end_in_one_line_or_are_bounded(tail):
    """A right checksum over anything: refused, or a layout no larger than the payload has bits for."""
    body = b"ddcm" + bytes([VERSION]) + tail
    try:
        header, payload = unpack(body + zlib.crc32(body).to_bytes(4, "little"))
        validate(header, payload)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        windows = len(header.layout.starts)
        assert windows <= max(1, 8 * len(payload))
        assert header.mode == "vq" or len(payload) * 8 >= header.offsets[-1]


@settings(deadline=None)
@given(parametric)
def test_parametric_schedules_expand_to_what_they_promise(schedule):
    expanded = expand(schedule)
    assert (
        len(expanded.timesteps) == schedule.steps and sum(expanded.atoms) == schedule.total and min(expanded.atoms) >= 0
    )
    assert expanded.timesteps[-1] == schedule.last and all(
        a > b for a, b in zip(expanded.timesteps, expanded.timesteps[1:], strict=False)
    )
    assert expanded.timesteps[0] == schedule.first
