"""UniPC of second order with B_2(h) = exp(h) - 1, as a pure step (arXiv 2302.04867)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Past:
    """What a step must know of those before it."""

    x: torch.Tensor
    """The corrected sample of the step before, at ``estimates[0]``'s abar."""
    estimates: tuple[tuple[torch.Tensor, float], ...]
    """(x0, abar) of the last one or two steps, latest first."""


def unipc_step(
    x: torch.Tensor, x0: torch.Tensor, abar: float, abar_next: float, past: Past | None = None
) -> tuple[torch.Tensor, Past]:
    """From x at ``abar`` to ``abar_next`` (nearer to 1) with the estimate x0 made at x.

    1. Corrector UniC (algorithm 1): x itself is improved with the estimate that was made at it. No model call.
    2. Predictor UniP (algorithm 2): on to ``abar_next``.

    The first step is of first order. Equal to diffusers' ``UniPCMultistepScheduler(solver_type="bh2")``.

    Returns:
        x at ``abar_next``, and what the next step needs.
    """
    if past is not None:
        x = _correct(x0, abar, past)
    estimates = ((x0, abar), *(past.estimates[:1] if past else ()))
    return _predict(x, estimates, abar_next), Past(x, estimates)


def _predict(x: torch.Tensor, estimates: tuple[tuple[torch.Tensor, float], ...], abar_next: float) -> torch.Tensor:
    """x' = first order - alpha' B(h) / 2 D1, with D1 = (x0_previous - x0) / r."""
    x0, abar = estimates[0]
    result, h = _first_order(x, x0, abar, abar_next)
    if len(estimates) == 2:
        before, abar_before = estimates[1]
        r = (_lambda(abar_before) - _lambda(abar)) / h
        result = result - abar_next**0.5 * math.expm1(-h) * 0.5 * (before - x0) / r
    return result


def _correct(x0_here: torch.Tensor, abar_here: float, past: Past) -> torch.Tensor:
    """As the predictor from the step before, with one more difference: D_t = x0_here - x0."""
    x0, abar = past.estimates[0]
    result, h = _first_order(past.x, x0, abar, abar_here)
    b_of_h = math.expm1(-h)
    change = x0_here - x0
    if len(past.estimates) == 1:
        return result - abar_here**0.5 * b_of_h * 0.5 * change
    before, abar_before = past.estimates[1]
    r = (_lambda(abar_before) - _lambda(abar)) / h
    # Weights rho solve [[1, 1], [r, 1]] rho = b, b_k = k! h phi_{k+1}(-h) / B(h)   (equations 9 and 10)
    phi_2 = b_of_h / -h - 1
    phi_3 = phi_2 / -h - 0.5
    b_1, b_2 = phi_2 / b_of_h, 2 * phi_3 / b_of_h
    rho_1 = (b_1 - b_2) / (1 - r)
    rho_2 = b_1 - rho_1
    return result - abar_here**0.5 * b_of_h * (rho_1 * (before - x0) / r + rho_2 * change)


def _first_order(x: torch.Tensor, x0: torch.Tensor, abar: float, abar_next: float) -> tuple[torch.Tensor, float]:
    """The exact solution for a constant x0 (a DDIM step), and h = lambda' - lambda."""
    h = _lambda(abar_next) - _lambda(abar)
    return ((1 - abar_next) / (1 - abar)) ** 0.5 * x - abar_next**0.5 * math.expm1(-h) * x0, h


def _lambda(abar: float) -> float:
    return 0.5 * math.log(abar / (1 - abar))
