"""A rate becomes a schedule, and the schedule a file of that size: no model is run here."""

import hashlib
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.schedules import equal_steps, moved, search
from ddcm.codec.encode import add_schedule, build_header
from ddcm.codec.rate_control import file_size, interpolate, read_rows
from ddcm.codec.schedule import ParametricSchedule, expand
from ddcm.codec.settings import QUALITIES, CodecSettings
from ddcm.errors import UserError


def planned_kbps(backbone, samples: int, wanted: CodecSettings) -> float:
    header = add_schedule(build_header(wanted, backbone, samples, None, 1), wanted)
    return file_size(header) * 8 / (samples / 16)


@settings(max_examples=25, deadline=None)
@given(
    kbps=st.floats(0.25, 4.0),
    samples=st.integers(5 * 16000, 300 * 16000),
    mode=st.sampled_from(["turbo", "classic"]),
    book=st.sampled_from(["hadamard", "gaussian"]),
    steps=st.sampled_from([None, 10, 30, 100]),
)
def test_rates_are_honoured(tiny, kbps, samples, mode, book, steps):
    wanted = CodecSettings(kbps=kbps, mode=mode, book=book, steps=steps)
    try:
        reached = planned_kbps(tiny, samples, wanted)
    except UserError as error:  # fewer bits than steps
        assert "nearest valid rate" in str(error)
        assume(False)
    assert reached == pytest.approx(kbps, rel=0.03)


def test_qualities_are_rates(tiny):
    for name, kbps in QUALITIES.items():
        assert planned_kbps(tiny, 20 * 16000, CodecSettings(quality=name)) == pytest.approx(kbps, rel=0.03)


@pytest.mark.parametrize("kbps", [0.01, 0.25, 0.7, 4.0, 50.0])
@pytest.mark.parametrize("steps", [None, 2, 30, 1000])
def test_any_rate_and_number_of_steps_has_a_curve(kbps, steps):
    curve = interpolate(kbps, steps, read_rows(None, "0" * 16))
    timesteps = expand(replace(curve, total=500)).timesteps
    assert len(timesteps) == (steps or 30) and all(a > b for a, b in pairwise(timesteps))


def test_curves_never_drift():
    """A file holds the curve and not its lists: they must come out the same forever."""
    made = [
        expand(ParametricSchedule(steps, 26, 3, 700, first, 125)) for steps, first in ((2, 800), (30, 999), (300, 800))
    ]
    text = repr(made).replace("ExplicitSchedule", "Lists")  # the class's name when the digest was taken
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "d7724e88ede85219"


def test_steps_of_equal_cost():
    """Where the cost grows evenly from noise to signal, the timesteps are even and end where the rate is spent."""
    cost = (800 - torch.arange(801, dtype=torch.float64)) / 400  # kbps; 2 in all
    curve = equal_steps(cost, 1.25, 11)
    assert (curve.first, curve.last, curve.power) == (800, 400, 16)  # 1.25 kbps of a code that is 0.8 as good


def test_the_search_only_gets_better_and_knows_its_bounds():
    target = ParametricSchedule(20, 30, 6, 1, 850, 150)

    def loss(curve: ParametricSchedule) -> float:
        names = ("power", "growth", "first", "last")
        return sum(abs(getattr(curve, name) - getattr(target, name)) / getattr(target, name) for name in names)

    begin = ParametricSchedule(20, 16, 0, 1, 999, 80)
    best, reached, tried = search(loss, [begin], 60)
    assert reached == loss(best) < 0.25 * loss(begin) and tried <= 60
    assert search(loss, [begin], 5)[2] <= 5
    assert (
        moved(ParametricSchedule(20, 1, 0, 1), "power", 4, -1) is None
        and moved(ParametricSchedule(20, 16, 0, 1), "last", 1.3, -1) is None
    )
    assert moved(ParametricSchedule(20, 16, 0, 1, 60, 41), "last", 2.0, 1) is None, "no room for the steps"
