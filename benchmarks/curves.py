"""Curves of error over rate, as straight lines between points in the logarithms."""

import numpy as np

Curve = list[tuple[float, float]]  # (kbps, dB): rates rise and errors fall


def rate_at(curve: Curve, error: float) -> float:
    """kbps at which a curve has the error; beyond its ends the last line goes on."""
    rates, errors = np.log(np.array(curve)).T
    return float(np.exp(_follow(-errors, rates, -np.log(error))))


def error_at(curve: Curve, rate: float) -> float:
    """dB that a curve has at the rate; beyond its ends the last line goes on."""
    rates, errors = np.log(np.array(curve)).T
    return float(np.exp(_follow(rates, errors, np.log(rate))))


def _follow(x: np.ndarray, y: np.ndarray, at: float) -> float:
    place = int(np.clip(np.searchsorted(x, at), 1, len(x) - 1))
    slope = (y[place] - y[place - 1]) / (x[place] - x[place - 1])
    return y[place - 1] + slope * (at - x[place - 1])
