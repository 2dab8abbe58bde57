"""A rate -> a schedule: how to spend steps and bits, from measurements, and then to the byte.

``schedules.json`` has a row for each rate and number of steps: the best schedule that ``benchmarks/schedules.py``
found. Between rates, exponents and ends are interpolated over the logarithm of the rate. The number of atoms is then
chosen so that the file has the requested size.
"""

import json
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.format import pack
from ddcm.codec.header import EVEN, Header, shorten
from ddcm.codec.step_schedule import MAX_ATOMS, MAX_STEPS, ParametricSchedule, expand
from ddcm.errors import UserError

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).with_name("schedules.json")
SHAPE = ("power", "growth", "first", "last")  # fields that rows and schedules share
TOLERANCE, TOLERANCE_FROM_S = 0.03, 5.0  # of the size, for recordings of this length and more


def solve_schedule(header: Header, settings: CodecSettings, code_bytes: int = 0) -> Header:
    """The header with the schedule of the settings, or the one whose file comes nearest to their rate, ``code_bytes``
    being those of a hybrid file's codes. A recording so short that its header alone is more than its share gets at
    least an atom for each step. Raises UserError: the rate cannot be met within 3 % for a recording of 5 s and more; it
    names the nearest that can. For a shorter one, a warning names it."""
    if settings.schedule is not None:
        return replace(header, schedule=settings.schedule)
    kbps, steps = settings.rate_kbps, settings.steps
    layout, budget = header.layout, kbps * 125 * header.seconds - code_bytes
    header_bytes = len(pack(replace(header, schedule=ParametricSchedule(2, 16, 0, 200)), b""))
    rate, _, hop, *_ = header.mel
    payload_kbps = max(budget - header_bytes, 1) / (len(layout.starts) * layout.size * hop / rate) / 125
    if header.mode == "classic":
        atoms = payload_kbps * 1000 * layout.size * hop / rate / header.log2_atoms  # that the bits pay for
        shape = ParametricSchedule(_check_steps(steps or min(max(round(atoms) + 1, 2), MAX_STEPS)), 16, 0, 1)
    else:
        shape = interpolate(payload_kbps, steps, read_rows(settings.schedules, header.backbone, header.cache_interval))

    def with_total(total: int) -> Header:
        return replace(header, schedule=replace(shape, total=total))

    # No step may have more atoms than the format allows, or than half of the codebook: more atoms add no bits.
    peak = max(expand(replace(shape, total=1 << 20)).atoms) / (1 << 20) * max(header.shares, default=EVEN) / EVEN
    limit = math.floor(min(MAX_ATOMS, (header.bases << header.log2_atoms) // 2) / peak) - 1
    most = max(shape.steps - 1, limit)
    total = find_nearest(lambda n: file_size(with_total(n)), budget, shape.steps - 1, most)
    check_rate(header, settings, file_size(with_total(total)) + code_bytes)
    return with_total(total)


def meets_rate(header: Header, settings: CodecSettings, size: int) -> bool:
    return abs(size / 125 / header.seconds / settings.rate_kbps - 1) <= TOLERANCE


def check_rate(header: Header, settings: CodecSettings, size: int) -> None:
    """Raises UserError, or warns for a recording below 5 s: a file of ``size`` bytes misses the rate by 3 %."""
    if not meets_rate(header, settings, size):
        reached = size / 125 / header.seconds
        message = f"{settings.rate_kbps:g} kbps cannot be met for {header.seconds:.1f} s; "
        if header.seconds >= TOLERANCE_FROM_S:
            raise UserError(f"{message}the nearest valid rate is {reached:.3g}")
        log.warning("%sthe file has %.3g kbps, the nearest to it", message, reached)


def file_size(header: Header) -> int:
    """Bytes of the file once its windows are coded."""
    return len(pack(header, b"")) + header.trajectory_bytes


def find_nearest(value: Callable[[int], float], target: float, low: int, high: int) -> int:
    """The n in [low, high] whose value is nearest to ``target``; values grow with n."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if value(middle) <= target else (low, middle)
    return min((low, high), key=lambda n: abs(value(n) - target))


def read_rows(table: Path | None, backbone: str, interval: int = 1) -> list[dict]:
    """Rows {kbps, steps, power, growth, first, last} of this backbone; of the table's first one if it has none. Rows
    that were solved with this interval of the UNet's cache stand before those without a cache. Raises UserError: the
    file is not such a table."""
    path = table or SHIPPED
    try:
        entries = json.loads(path.read_text())
        own = [entry for entry in entries if shorten(entry["backbone"]) == shorten(backbone)]
        rows = (own or entries)[0]["rows"]
        if not all({"kbps", "steps", *SHAPE} <= set(row) for row in rows) or not rows:
            raise ValueError("rows are incomplete")
        intervals = {row.get("interval", 1) for row in rows}
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path}: no table of schedules ({error}); benchmarks/schedules.py makes one") from error
    nearest = min(intervals, key=lambda known: (known != interval, known))
    return [row for row in rows if row.get("interval", 1) == nearest]


def interpolate(kbps: float, steps: int | None, rows: list[dict]) -> ParametricSchedule:
    """The shape for a payload rate; its ``total`` is 1. ``steps`` None: the largest number of the table, which is the
    best for a payload of a few bytes, too. Rows are those of the nearest number."""
    best: dict[float, tuple[float, dict]] = {}
    for row in rows:
        rate, cost = row["kbps"], -row["steps"] if steps is None else abs(math.log(row["steps"] / steps))
        if rate not in best or cost < best[rate][0]:
            best[rate] = (cost, row)
    points = sorted((math.log(rate), row) for rate, (_, row) in best.items())
    x = min(max(math.log(kbps), points[0][0]), points[-1][0])
    below = max((p for p in points if p[0] <= x), key=lambda p: p[0])
    above = min((p for p in points if p[0] >= x), key=lambda p: p[0])
    share = (x - below[0]) / (above[0] - below[0]) if above[0] > below[0] else 0.0

    def between(name: str) -> int:
        return round((1 - share) * below[1][name] + share * above[1][name])

    steps = _check_steps(steps if steps is not None else (below if share < 0.5 else above)[1]["steps"])
    first, last = between("first"), between("last")
    first = min(max(first, last + steps - 1), MAX_STEPS - 1)  # room for all steps
    return ParametricSchedule(steps, between("power"), between("growth"), 1, first, min(last, first - steps + 1))


def _check_steps(steps: int) -> int:
    if not 2 <= steps <= MAX_STEPS:
        raise UserError(f"steps {steps} is outside [2, {MAX_STEPS}]; the nearest is {min(max(steps, 2), MAX_STEPS)}")
    return steps
