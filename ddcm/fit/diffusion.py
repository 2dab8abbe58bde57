"""How hard quantised latents are for the frozen diffusion model: an optional term of the loss."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ddcm.backbone import Backbone


def diffusion_loss(backbone: Backbone, z: torch.Tensor, seed: int) -> torch.Tensor:
    """Mean squared error of the UNet's noise estimate for z (B, C, L, F), with gradients to z.

    z is noised to a random timestep, the same for the batch, and denoised without a prompt:
    x = sqrt(abar) z + sqrt(1 - abar) noise, loss = mean |eps(x, t) - noise|^2. Latents that the model finds
    likely give a small loss. Timestep and noise come from ``seed`` on the CPU, so a step can be repeated.
    """
    generator = torch.Generator().manual_seed(seed % 2**63)
    t = int(torch.randint(len(backbone.alphas_cumprod), (1,), generator=generator))
    noise = torch.randn(z.shape, generator=generator).to(z.device)
    abar = float(backbone.alphas_cumprod[t])
    x = abar**0.5 * z + (1 - abar) ** 0.5 * noise
    return F.mse_loss(backbone.eps(x, t, backbone.null_condition()), noise)
