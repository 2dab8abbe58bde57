"""How hard quantised latents are for the frozen diffusion model: an optional term of the loss."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ddcm.backbone import Backbone


def diffusion_loss(backbone: Backbone, z: torch.Tensor, seed: int) -> torch.Tensor:
    """Mean squared error of the UNet's noise estimate for z (B, C, L, F), with gradients to z.

    z is noised and denoised without a prompt: x = sqrt(abar) z + sqrt(1 - abar) noise, loss = mean
    |eps(x, t) - noise|^2. Latents that the model finds likely give a small loss. Each sample has a timestep of its
    own, one from each of B equal ranges, which varies less than B free draws. Timesteps and noise come from
    ``seed`` on the CPU, so a step can be repeated.
    """
    generator = torch.Generator().manual_seed(seed % 2**63)
    place = (torch.arange(len(z)) + torch.rand(len(z), generator=generator)) / len(z)
    t = (place * len(backbone.alphas_cumprod)).long()
    noise = torch.randn(z.shape, generator=generator).to(z.device)
    abar = backbone.alphas_cumprod.cpu()[t].to(z)[:, None, None, None]
    x = abar.sqrt() * z + (1 - abar).sqrt() * noise
    estimate = backbone.eps(x, t, backbone.null_condition())
    backbone.check()
    return F.mse_loss(estimate, noise)
