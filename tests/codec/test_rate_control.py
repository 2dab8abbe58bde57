"""A rate becomes a schedule, and the schedule a file of that size: no model is run here."""

import hashlib
import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.schedules import equal_cost_schedule, move_parameter, search
from ddcm.codec.codec_settings import QUALITIES, CodecSettings
from ddcm.codec.compress import build_header
from ddcm.codec.rate_control import file_size, interpolate, read_rows, solve_schedule
from ddcm.codec.step_schedule import ParametricSchedule, expand
from ddcm.errors import UserError


def solved_kbps(backbone, samples: int, codec_settings: CodecSettings) -> float:
    header = solve_schedule(build_header(codec_settings, backbone, samples), codec_settings)
    return file_size(header) * 8 / (samples / 16)


@settings(max_examples=25, deadline=None)
@given(
    kbps=st.floats(0.25, 4.0),
    samples=st.integers(5 * 16000, 300 * 16000),
    mode=st.sampled_from(["turbo", "classic"]),
    book=st.sampled_from(["hadamard", "gaussian"]),
    bases=st.sampled_from([1, 8, 128]),
    steps=st.sampled_from([None, 10, 30, 100]),
)
def test_rates_are_honoured(tiny, kbps, samples, mode, book, bases, steps):
    codec_settings = CodecSettings(kbps=kbps, mode=mode, book=book, bases=bases, steps=steps)
    try:
        reached = solved_kbps(tiny, samples, codec_settings)
    except UserError as error:  # fewer bits than steps
        assert "nearest valid rate" in str(error)
        assume(False)
    assert reached == pytest.approx(kbps, rel=0.03)


def test_qualities_are_rates(tiny):
    for name, kbps in QUALITIES.items():
        assert solved_kbps(tiny, 20 * 16000, CodecSettings(quality=name)) == pytest.approx(kbps, rel=0.03)


@pytest.mark.parametrize("kbps", [0.01, 0.25, 0.7, 4.0, 50.0])
@pytest.mark.parametrize("steps", [None, 2, 30, 1000])
def test_any_rate_and_number_of_steps_has_a_schedule(kbps, steps):
    schedule = interpolate(kbps, steps, read_rows(None, "0" * 16))
    timesteps = expand(replace(schedule, total=500)).timesteps
    assert len(timesteps) == (steps or 30) and all(a > b for a, b in pairwise(timesteps))


def test_a_cache_has_schedules_of_its_own(tmp_path):
    row = dict(kbps=1.0, steps=30, power=40, growth=0, first=900, last=100)
    rows = [row, row | dict(interval=3, power=60), row | dict(interval=4, power=70)]
    (tmp_path / "table.json").write_text(json.dumps([dict(backbone="", name="", rows=rows)]))
    powers = {i: [r["power"] for r in read_rows(tmp_path / "table.json", "0" * 16, i)] for i in (1, 2, 3, 4)}
    assert powers == {1: [40], 2: [40], 3: [60], 4: [70]}


def test_schedules_never_drift():
    """A file holds the schedule and not its lists: they must come out the same forever."""
    expanded = [
        expand(ParametricSchedule(steps, 26, 3, 700, first, 125)) for steps, first in ((2, 800), (30, 999), (300, 800))
    ]
    text = repr(expanded).replace("ExplicitSchedule", "Lists")  # the class's name when the digest was taken
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "d7724e88ede85219"


def test_steps_of_equal_cost():
    """Where the cost grows evenly from noise to signal, the timesteps are even and end where the rate is spent."""
    cost = (800 - torch.arange(801, dtype=torch.float64)) / 400  # kbps; 2 in all
    schedule = equal_cost_schedule(cost, 1.25, 11)
    assert (schedule.first, schedule.last, schedule.power) == (800, 400, 16)  # 1.25 kbps of a code that is 0.8 as good


def test_the_search_only_gets_better_and_knows_its_bounds():
    target = ParametricSchedule(20, 30, 6, 1, 850, 150)

    def loss(schedule: ParametricSchedule) -> float:
        names = ("power", "growth", "first", "last")
        return sum(abs(getattr(schedule, name) - getattr(target, name)) / getattr(target, name) for name in names)

    begin = ParametricSchedule(20, 16, 0, 1, 999, 80)
    best, reached, tried = search(loss, [begin], 60)
    assert reached == loss(best) < 0.25 * loss(begin) and tried <= 60
    assert search(loss, [begin], 5)[2] <= 5
    assert (
        move_parameter(ParametricSchedule(20, 1, 0, 1), "power", 4, -1) is None
        and move_parameter(ParametricSchedule(20, 16, 0, 1), "last", 1.3, -1) is None
    )
    assert move_parameter(ParametricSchedule(20, 16, 0, 1, 60, 41), "last", 2.0, 1) is None, "no room for the steps"
