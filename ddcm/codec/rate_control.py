"""A rate -> a schedule: how to spend steps and bits, from measurements, and then to the byte.

``schedules.json`` has what ``benchmarks/schedules.py`` found to be best, a row for each rate and number of steps.
Between rates the ends and exponents are interpolated over the logarithm of the rate; the atoms are then counted so
that the file has the size asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ddcm.codec.format import Stream, pack
from ddcm.codec.layout import Layout, window_bits
from ddcm.codec.schedule import MAX_ATOMS, MAX_STEPS, ParametricSchedule, expand
from ddcm.errors import UserError

SHIPPED = Path(__file__).with_name("schedules.json")
SHAPE = ("power", "growth", "first", "last")  # what rows and curves have in common
TOLERANCE = 0.03  # of the size, for recordings of HONOURED seconds and more
HONOURED_S = 5.0


def planned(stream: Stream, placed: Layout, kbps: float, steps: int | None, table: Path | None = None) -> Stream:
    """The stream with the schedule whose file comes nearest to ``kbps``.

    Short recordings, whose header alone is more than their share, get at least an atom for each step.

    Raises:
        UserError: the rate cannot be met within 3 % for a recording of 5 s and more; it names the nearest that can.
    """
    seconds, windows = stream.samples / stream.mel[0], len(placed.starts)
    if not (math.isfinite(kbps) and kbps > 0):
        raise UserError(f"kbps {kbps} is not a positive number")
    budget = kbps * 125 * seconds  # bytes
    header = len(pack(replace(stream, schedule=ParametricSchedule(2, 16, 0, 200))))
    spare = max(budget - header, 1) / (windows * placed.size * stream.mel[2] / stream.mel[0]) / 125
    if stream.mode == "classic":
        shape = _even(spare * 1000 * placed.size * stream.mel[2] / stream.mel[0], stream.log2_atoms, steps)
    else:
        shape = curve_for(spare, steps, rows(table, stream.backbone))

    def with_total(total: int) -> Stream:
        return replace(stream, schedule=replace(shape, total=total))

    least, most = shape.steps - 1, _most(with_total, shape, stream.log2_atoms)
    total = nearest(lambda n: size_of(with_total(n), windows), budget, least, most)
    reached = size_of(with_total(total), windows) / 125 / seconds
    if abs(reached / kbps - 1) > TOLERANCE and seconds >= HONOURED_S:
        raise UserError(f"{kbps:g} kbps cannot be met for {seconds:.1f} s; the nearest valid rate is {reached:.3g}")
    return with_total(total)


def _even(bits: float, log2_atoms: int, steps: int | None) -> ParametricSchedule:
    """Classic DDCM's: even timesteps, and unless ``steps`` says otherwise as many as there is an atom for."""
    return ParametricSchedule(checked_steps(steps or min(max(round(bits / log2_atoms) + 1, 2), MAX_STEPS)), 16, 0, 1)


def checked_steps(steps: int) -> int:
    """
    Raises:
        UserError: out of range.
    """
    if not 2 <= steps <= MAX_STEPS:
        raise UserError(f"steps {steps} is outside [2, {MAX_STEPS}]; the nearest is {min(max(steps, 2), MAX_STEPS)}")
    return steps


def size_of(stream: Stream, windows: int) -> int:
    """Bytes of the file once the windows are coded."""
    return len(pack(stream)) + -(-windows * window_bits(stream) // 8)


def nearest(value: Callable[[int], float], wanted: float, low: int, high: int) -> int:
    """The n in [low, high] whose value is nearest to ``wanted``; values grow with n."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if value(middle) <= wanted else (low, middle)
    return min((low, high), key=lambda n: abs(value(n) - wanted))


def _most(with_total: Callable[[int], Stream], shape: ParametricSchedule, log2_atoms: int) -> int:
    """The largest total of which no step has more atoms than a step can have, or than half of them: more adds no
    bits."""
    limit = min(MAX_ATOMS, (1 << log2_atoms) // 2)
    peak = max(expand(replace(shape, total=1 << 20)).atoms) / (1 << 20)
    return max(shape.steps - 1, math.floor(limit / peak) - 1)


def rows(table: Path | None, backbone: str) -> list[dict]:
    """Rows {kbps, steps, power, growth, first, last} that were measured on this backbone, else those that were shipped.

    Raises:
        UserError: the file is not such a table.
    """
    try:
        entries = json.loads((table or SHIPPED).read_text())
        own = [entry for entry in entries if entry["backbone"] == backbone]
        found = (own or entries)[0]["rows"]
        if not all({"kbps", "steps", *SHAPE} <= set(row) for row in found) or not found:
            raise ValueError("rows are incomplete")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{table or SHIPPED}: no table of schedules ({error}); benchmarks/schedules.py makes one"
        ) from error
    return found


def curve_for(kbps: float, steps: int | None, measured: list[dict]) -> ParametricSchedule:
    """The shape for a payload rate; ``total`` is left at 1.

    Without ``steps``, the number of them that was best at the nearest rate. With it, the rows of the nearest number.
    """
    best: dict[float, tuple[float, dict]] = {}
    for row in measured:
        at, cost = row["kbps"], row.get("loss", 0.0) if steps is None else abs(math.log(row["steps"] / steps))
        if at not in best or cost < best[at][0]:
            best[at] = (cost, row)
    points = sorted((math.log(at), row) for at, (_, row) in best.items())
    x = min(max(math.log(kbps), points[0][0]), points[-1][0])
    below = max((p for p in points if p[0] <= x), key=lambda p: p[0])
    above = min((p for p in points if p[0] >= x), key=lambda p: p[0])
    share = (x - below[0]) / (above[0] - below[0]) if above[0] > below[0] else 0.0

    def between(name: str) -> int:
        return round((1 - share) * below[1][name] + share * above[1][name])

    chosen = checked_steps(steps if steps is not None else (below if share < 0.5 else above)[1]["steps"])
    first, last = between("first"), between("last")
    first = min(max(first, last + chosen - 1), MAX_STEPS - 1)  # room for all of them
    return ParametricSchedule(chosen, between("power"), between("growth"), 1, first, min(last, first - chosen + 1))
