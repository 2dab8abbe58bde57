"""Timestep lists and the two steps between them, on latents of any shape.

With abar the share of signal variance at a timestep, x_t = sqrt(abar) x0 + sqrt(1 - abar) eps. Lists are explicit
and may be uneven; nothing here assumes a stride.
"""

from __future__ import annotations

import torch

TRAIN_STEPS = 1000


def even(count: int, start: int = TRAIN_STEPS - 1) -> tuple[int, ...]:
    """``count`` timesteps from ``start`` down to 0, as even as integers allow; fewer where they would repeat."""
    return tuple(sorted({round(t) for t in _linear(count, start)}, reverse=True))


def quadratic(count: int, start: int = TRAIN_STEPS - 1) -> tuple[int, ...]:
    """``count`` timesteps start * (1 - s)^2, s from 0 to 1: dense where little noise is left; fewer where they repeat.

    The signal-to-noise ratio changes fastest near 0, where even steps are too long: on a Gaussian whose solution is
    known, 20 of these are ten times nearer to it than 20 even ones with ``dpm++``, and twice with ``ddim``
    (tests/diffusion/test_loop.py).
    """
    return tuple(sorted({round(t * t / start) for t in _linear(count, start)}, reverse=True)) if start else (0,)


def from_strength(strength: float, steps: int) -> tuple[int, ...]:
    """The part of a ``steps`` long schedule that lies below ``strength`` in [0, 1]: as many steps as that share.

    Strength 0 is the empty list: nothing is noised, nothing denoised (SDEdit, arXiv 2108.01073).
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is in [0, 1], not {strength}")
    start = round(strength * (TRAIN_STEPS - 1))
    return quadratic(max(1, round(steps * strength)), start) if start > 0 else ()


def _linear(count: int, start: int) -> list[float]:
    if count < 1 or not 0 <= start < TRAIN_STEPS:
        raise ValueError(f"need at least one step and a start in [0, {TRAIN_STEPS - 1}], not {count} and {start}")
    return [start * (1 - i / (count - 1)) for i in range(count)] if count > 1 else [start]


def add_noise(x0: torch.Tensor, noise: torch.Tensor, abar: float) -> torch.Tensor:
    """x_t from x0 and unit noise."""
    return abar**0.5 * x0 + (1 - abar) ** 0.5 * noise


def ddim_step(
    x: torch.Tensor,
    x0: torch.Tensor,
    abar: float,
    abar_next: float,
    eta: float = 0.0,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """From x at ``abar`` to ``abar_next`` (nearer to 1) with the estimate x0 (DDIM, arXiv 2010.02502).

    1. eps = (x - sqrt(abar) x0) / sqrt(1 - abar)
    2. sigma = eta sqrt((1 - abar') / (1 - abar)) sqrt(1 - abar / abar')       (equation 16)
    3. x' = sqrt(abar') x0 + sqrt(1 - abar' - sigma^2) eps + sigma noise       (equation 12)
    """
    eps = (x - abar**0.5 * x0) / (1 - abar) ** 0.5
    sigma = eta * ((1 - abar_next) / (1 - abar) * (1 - abar / abar_next)) ** 0.5
    result = abar_next**0.5 * x0 + (1 - abar_next - sigma**2) ** 0.5 * eps
    if sigma > 0:
        if noise is None:
            raise ValueError("eta > 0 needs noise")
        result = result + sigma * noise
    return result


def dpmpp_step(
    x: torch.Tensor,
    x0: torch.Tensor,
    abar: float,
    abar_next: float,
    previous: tuple[torch.Tensor, float] | None = None,
) -> torch.Tensor:
    """A step of DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2); the first one is of first order.

    ``previous`` is the estimate x0 of the step before and the abar that it was made at. With
    lambda = log(sqrt(abar) / sqrt(1 - abar)) and h = lambda' - lambda:

    1. D = x0 + (x0 - x0_previous) h / (2 h_previous)
    2. x' = sqrt(1 - abar') / sqrt(1 - abar) x - sqrt(abar') (exp(-h) - 1) D
    """
    h = _lambda(abar_next) - _lambda(abar)
    d = x0
    if previous is not None:
        before, abar_before = previous
        h_before = _lambda(abar) - _lambda(abar_before)
        d = x0 + (x0 - before) * (h / (2 * h_before))
    shrink = torch.expm1(torch.tensor(-h, dtype=torch.float64)).item()
    return ((1 - abar_next) / (1 - abar)) ** 0.5 * x - abar_next**0.5 * shrink * d


def _lambda(abar: float) -> float:
    return 0.5 * torch.logit(torch.tensor(abar, dtype=torch.float64)).item()
