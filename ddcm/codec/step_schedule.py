"""Schedules: the timesteps of a window, and the number of atoms of each coded step.

A ``ParametricSchedule`` is what ``rate_control`` solves for; ``expand`` gives its lists. Powers are taken in decimal
arithmetic, which rounds alike on every machine: a list with one other timestep would be another file.
"""

import functools
from dataclasses import dataclass
from decimal import Context, Decimal
from itertools import accumulate, pairwise

MAX_STEPS, MAX_ATOMS = 1000, 2048  # timesteps of the denoiser; atoms of one step
EXACT = Context(prec=28)


@dataclass(frozen=True)
class ParametricSchedule:
    """A schedule in six numbers."""

    steps: int  # T timesteps, which are T UNet calls and T - 1 coded noises; in [2, 1000]
    power: int  # timesteps are last + (first - last) (1 - s)^(power / 16), s even in [0, 1]; in [1, 255]
    growth: int  # atoms of a step are proportional to s^(growth / 16); in [0, 255]
    total: int  # atoms of all steps of a window together
    first: int = MAX_STEPS - 1  # the noisiest timestep
    last: int = 0  # the timestep whose estimate is the result; first - last >= steps - 1

    @property
    def is_valid(self) -> bool:
        sizes = 2 <= self.steps <= MAX_STEPS and 1 <= self.power <= 255 and 0 <= self.growth <= 255
        span = 0 <= self.last <= self.first - self.steps + 1 and self.first < MAX_STEPS
        return sizes and span and 1 <= self.total <= MAX_ATOMS * MAX_STEPS


@dataclass(frozen=True)
class ExplicitSchedule:
    """A schedule as its two lists."""

    timesteps: tuple[int, ...]  # T timesteps, strictly falling
    atoms: tuple[int, ...]  # atoms of each step but the last: T - 1 numbers

    @property
    def is_valid(self) -> bool:
        falls = all(a > b for a, b in pairwise((MAX_STEPS, *self.timesteps, -1)))
        return falls and len(self.atoms) == len(self.timesteps) - 1 and all(0 <= m <= MAX_ATOMS for m in self.atoms)


Schedule = ParametricSchedule | ExplicitSchedule


@functools.lru_cache(maxsize=256)
def expand(schedule: Schedule) -> ExplicitSchedule:
    """The lists of a schedule. The timesteps of T steps are last + (first - last) (1 - s)^p for T values of s, even in
    [0, 1]. Where rounding would repeat one, those before it move up. The atoms of a step are its share of ``total``, in
    proportion to s^q at the end of the step, rounded so that all add up to ``total``."""
    if isinstance(schedule, ExplicitSchedule):
        return schedule
    noises, power, growth = schedule.steps - 1, Decimal(schedule.power) / 16, Decimal(schedule.growth) / 16
    timesteps = [schedule.last]
    for i in range(1, noises + 1):
        ideal = schedule.last + _round((schedule.first - schedule.last) * EXACT.power(Decimal(i) / noises, power))
        timesteps.append(min(max(ideal, timesteps[-1] + 1), schedule.first - noises + i))
    weights = [EXACT.power(Decimal(i + 1) / noises, growth) for i in range(noises)]
    weight_sum, cumulated = sum(weights), accumulate(weights)
    spent = [0, *(_round(EXACT.divide(EXACT.multiply(c, schedule.total), weight_sum)) for c in cumulated)]
    return ExplicitSchedule(tuple(timesteps[::-1]), tuple(b - a for a, b in pairwise(spent)))


def _round(number: Decimal) -> int:
    return int(number.to_integral_value(context=EXACT))
