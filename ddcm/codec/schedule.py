"""Schedules as lists: the timesteps, and how many atoms each coded step has.

A curve is a family of two ends and two exponents that the measurements in ``schedules.json`` were made over. Powers are
taken in decimal arithmetic, which is software and rounds alike everywhere: a list that differed by one timestep would
be another file.
"""

from __future__ import annotations

import functools
from decimal import Context, Decimal

from ddcm.codec.format import Curve, Lists

EXACT = Context(prec=28)


@functools.lru_cache(maxsize=256)
def lists(schedule: Curve | Lists) -> Lists:
    """The schedule's explicit form.

    A curve's timesteps are last + (first - last) (1 - s)^p for T values of s, even in [0, 1]; where rounding would
    repeat one, those before move up. Its atoms are shares of ``total`` in proportion to s^q at the end of each step,
    rounded so that they add up to it.
    """
    if isinstance(schedule, Lists):
        return schedule
    noises, power, growth = schedule.steps - 1, _sixteenths(schedule.power), _sixteenths(schedule.growth)
    timesteps = [schedule.last]
    for i in range(1, noises + 1):
        wanted = schedule.last + _round((schedule.first - schedule.last) * _power(Decimal(i) / noises, power))
        timesteps.append(min(max(wanted, timesteps[-1] + 1), schedule.first - noises + i))
    weights = [_power(Decimal(i + 1) / noises, growth) for i in range(noises)]
    whole, cumulated, atoms, given = sum(weights), Decimal(0), [], 0
    for weight in weights:
        cumulated += weight
        upto = _round(EXACT.divide(EXACT.multiply(cumulated, schedule.total), whole))
        atoms.append(upto - given)
        given = upto
    return Lists(tuple(timesteps[::-1]), tuple(atoms))


def _sixteenths(number: int) -> Decimal:
    return Decimal(number) / 16


def _power(base: Decimal, exponent: Decimal) -> Decimal:
    return EXACT.power(base, exponent)


def _round(number: Decimal) -> int:
    return int(number.to_integral_value(context=EXACT))
