"""Steps from one timestep to the next, on latents of any shape. Pure functions.

With abar the share of signal variance at a timestep, x_t = sqrt(abar) x0 + sqrt(1 - abar) eps. Steps go from x at
``abar`` to ``abar_next``, nearer to 1, with an estimate x0 made at x. lambda = log(sqrt(abar) / sqrt(1 - abar)) and
h = lambda' - lambda.
"""

import math
from dataclasses import dataclass

import torch

Estimate = tuple[torch.Tensor, float]  # (x0, abar that it was made at)


def ddim_step(
    x: torch.Tensor, x0: torch.Tensor, abar: float, abar_next: float, eta: float = 0.0,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """A step of DDIM (arXiv 2010.02502).

    1. eps = (x - sqrt(abar) x0) / sqrt(1 - abar)
    2. sigma = eta sqrt((1 - abar') / (1 - abar)) sqrt(1 - abar / abar')       (equation 16)
    3. x' = sqrt(abar') x0 + sqrt(1 - abar' - sigma^2) eps + sigma noise       (equation 12)

    Raises:
        ValueError: eta > 0 without noise.
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
    x: torch.Tensor, x0: torch.Tensor, abar: float, abar_next: float, previous: Estimate | None = None
) -> tuple[torch.Tensor, Estimate]:
    """A step of DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2); x at ``abar_next``, and the next ``previous``.

    Without ``previous`` the step is of first order.

    1. D = x0 + (x0 - x0_previous) h / (2 h_previous)
    2. x' = sqrt(1 - abar') / sqrt(1 - abar) x - sqrt(abar') (exp(-h) - 1) D
    """
    d = x0
    if previous is not None:
        x0_before, abar_before = previous
        d = x0 + (x0 - x0_before) * (_h(abar, abar_next) / (2 * _h(abar_before, abar)))
    return _first_order(x, d, abar, abar_next), (x0, abar)


@dataclass(frozen=True)
class UniPCState:
    """What a step of UniPC needs of the steps before it."""

    x: torch.Tensor  # the corrected sample of the step before, at the abar of ``estimates[0]``
    estimates: tuple[Estimate, ...]  # of the last one or two steps, latest first


def unipc_step(
    x: torch.Tensor, x0: torch.Tensor, abar: float, abar_next: float, state: UniPCState | None = None
) -> tuple[torch.Tensor, UniPCState]:
    """A step of UniPC of second order with B_2(h) = exp(h) - 1 (arXiv 2302.04867); x at ``abar_next`` and its state.

    1. Corrector UniC (algorithm 1): improves x with the estimate that was made at it, without a model call.
    2. Predictor UniP (algorithm 2): x' = first order - sqrt(abar') B(h) / 2 D1, D1 = (x0_previous - x0) / r.

    Without a state the step is of first order. Equal to diffusers' ``UniPCMultistepScheduler(solver_type="bh2")``.
    """
    if state is None:
        return _first_order(x, x0, abar, abar_next), UniPCState(x, ((x0, abar),))
    x, (x0_before, abar_before) = _correct(x0, abar, state), state.estimates[0]
    h = _h(abar, abar_next)
    r = _h(abar, abar_before) / h
    result = _first_order(x, x0, abar, abar_next) - abar_next**0.5 * math.expm1(-h) * 0.5 * (x0_before - x0) / r
    return result, UniPCState(x, ((x0, abar), state.estimates[0]))


def _correct(x0_here: torch.Tensor, abar_here: float, state: UniPCState) -> torch.Tensor:
    """As the predictor from the step before, with one more difference: D_t = x0_here - x0."""
    x0, abar = state.estimates[0]
    result, h = _first_order(state.x, x0, abar, abar_here), _h(abar, abar_here)
    b_of_h, change = math.expm1(-h), x0_here - x0
    if len(state.estimates) == 1:
        return result - abar_here**0.5 * b_of_h * 0.5 * change
    x0_before, abar_before = state.estimates[1]
    r = _h(abar, abar_before) / h
    # Weights rho solve [[1, 1], [r, 1]] rho = b, b_k = k! h phi_{k+1}(-h) / B(h)   (equations 9 and 10)
    phi_2 = b_of_h / -h - 1
    phi_3 = phi_2 / -h - 0.5
    b_1, b_2 = phi_2 / b_of_h, 2 * phi_3 / b_of_h
    rho_1 = (b_1 - b_2) / (1 - r)
    rho_2 = b_1 - rho_1
    return result - abar_here**0.5 * b_of_h * (rho_1 * (x0_before - x0) / r + rho_2 * change)


def _first_order(x: torch.Tensor, x0: torch.Tensor, abar: float, abar_next: float) -> torch.Tensor:
    """The exact solution of the probability-flow ODE for a constant x0: a step of DDIM with eta = 0."""
    shrink = math.expm1(-_h(abar, abar_next))
    return ((1 - abar_next) / (1 - abar)) ** 0.5 * x - abar_next**0.5 * shrink * x0


def _h(abar: float, abar_next: float) -> float:
    """lambda' - lambda"""
    return 0.5 * math.log(abar_next / (1 - abar_next)) - 0.5 * math.log(abar / (1 - abar))
