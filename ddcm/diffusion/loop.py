"""The one denoising loop. Sampling, transforming and coding differ in its start and its arguments."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch

from ddcm.diffusion.solvers import ddim_step, dpmpp_step, unipc_step

Denoiser = Callable[[torch.Tensor, int], torch.Tensor]  # ``denoise(x, t) -> x0``, guidance inside.
PickNoise = Callable[[int, torch.Tensor], torch.Tensor | None]
"""``pick_noise(i, x0) -> noise``, unit variance, for the step after the i-th estimate; None: a step without noise."""
Project = Callable[[int, torch.Tensor], torch.Tensor]  # ``project(i, x0) -> x0``: acts on the i-th estimate.

MULTISTEP: dict[str, Callable[..., tuple[torch.Tensor, Any]]] = {"dpm++": dpmpp_step, "unipc": unipc_step}


def identity(i: int, x0: torch.Tensor) -> torch.Tensor:
    return x0


@torch.no_grad()
def denoise_loop(
    denoise: Denoiser, x: torch.Tensor, timesteps: Sequence[int], alphas_cumprod: torch.Tensor, *,
    pick_noise: PickNoise | None = None, project: Project = identity,
    solver: Literal["ddim", "dpm++", "unipc"] = "ddim", on_step: Callable[[int, torch.Tensor], None] | None = None,
) -> torch.Tensor:  # fmt: skip
    """Denoise x (B, C, L, F), a sample at ``timesteps[0]``, down the list; returns the last estimate x0.

    Args:
        denoise: the model.
        x: unit noise, or a noised input.
        timesteps: strictly falling, of any spacing. An empty list returns x: there is nothing to remove.
        alphas_cumprod: (1000,) share of signal variance at each timestep.
        pick_noise: eta is 1 with it, and 0 without it or where it returns None.
        project: changes an estimate before it is used.
        solver: ``ddim``, or ``dpm++`` or ``unipc``, which are deterministic and refuse ``pick_noise``.
        on_step: called with (i, x0) after each estimate, for progress and traces.

    Raises ValueError: an unknown solver, noise for a deterministic one, or timesteps that do not fall.
    """
    if solver not in ("ddim", *MULTISTEP):
        raise ValueError(f"solver is 'ddim', 'dpm++' or 'unipc', not {solver!r}")
    if solver != "ddim" and pick_noise is not None:
        raise ValueError(f"{solver} is deterministic; noise is picked with ddim")
    if any(a <= b for a, b in pairwise(timesteps)):
        raise ValueError(f"timesteps must fall strictly: {list(timesteps)}")
    state: Any = None  # of a multistep solver
    for i, t in enumerate(timesteps):
        x0 = project(i, denoise(x, t))
        if on_step is not None:
            on_step(i, x0)
        if i + 1 == len(timesteps):
            return x0
        abar, abar_next = float(alphas_cumprod[t]), float(alphas_cumprod[timesteps[i + 1]])
        if solver != "ddim":
            x, state = MULTISTEP[solver](x, x0, abar, abar_next, state)
        else:
            noise = None if pick_noise is None else pick_noise(i, x0)
            x = ddim_step(x, x0, abar, abar_next, 0.0 if noise is None else 1.0, noise)
    return x
