"""How well the frozen diffusion model denoises quantised latents: an optional loss term, and a validation metric."""

import torch

from ddcm.backbone import Backbone
from ddcm.runtime.distributed import rank, world_size

GOLDEN = 0.6180339887498949  # the fractional parts of its multiples fill [0, 1) evenly (additive recurrence)


def count_clear_timesteps(alphas_cumprod: torch.Tensor) -> int:
    """Number of timesteps, from 0 up, with at least as much signal as noise (abar >= 1/2): about 250 of AudioLDM2's
    1000. Only there does quantisation matter: above, the noise hides it and the error is the same for all atoms."""
    return max(1, int((alphas_cumprod >= 0.5).sum()))


def denoising_error(backbone: Backbone, z: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Error of the UNet without a prompt, mean |eps(x, t) - noise|^2 of each sample: (B,). z is (B, C, L, F), timesteps
    t are (B,), and noise (B, C, L, F) is standard normal. Gradients go to z. x = sqrt(abar) z + sqrt(1 - abar) noise
    (DDPM, arXiv 2006.11239, equation 4)."""
    z = z.float()  # whatever the precision of the training
    abar, noise = (x.to(z, non_blocking=True) for x in (backbone.alphas_cumprod.cpu()[t], noise))
    abar = abar[:, None, None, None]
    x = abar.sqrt() * z + (1 - abar).sqrt() * noise
    estimate = backbone.eps(x, t.to(z.device, non_blocking=True), backbone.null_condition())
    backbone.check()
    return (estimate - noise).square().mean(dim=(1, 2, 3))


def diffusion_loss(backbone: Backbone, z: torch.Tensor, seed: int) -> torch.Tensor:
    """Mean ``denoising_error`` of z (B, C, L, F) at random clear timesteps. Gradients go to z. Timesteps are
    stratified: the samples of all ranks draw from as many equal ranges, one each. Timesteps and noise come from
    ``seed`` on the CPU, so a step can be repeated. Ranks share them out as they do a batch, so several ranks compute
    the loss of one rank with the larger batch."""
    generator, total = torch.Generator().manual_seed(seed % 2**63), len(z) * world_size()
    position = (torch.arange(total) + torch.rand(total, generator=generator, dtype=torch.float32)) / total
    t = (position * count_clear_timesteps(backbone.alphas_cumprod)).long()
    noise = torch.randn(total, *z.shape[1:], generator=generator, dtype=torch.float32)
    own = slice(rank(), None, world_size())
    return denoising_error(backbone, z, t[own], noise[own]).mean()


def fixed_errors(backbone: Backbone, z: torch.Tensor, numbers: list[int]) -> torch.Tensor:
    """``denoising_error`` (B,) of z at clear timesteps, with timestep and noise fixed by each sample's number: two
    codebooks are compared under the same timesteps and noise."""
    clear = count_clear_timesteps(backbone.alphas_cumprod)
    t = torch.tensor([int(number * GOLDEN % 1 * clear) for number in numbers])
    noise = [
        torch.randn(z.shape[1:], generator=torch.Generator().manual_seed(number), dtype=torch.float32)
        for number in numbers
    ]
    return denoising_error(backbone, z, t, torch.stack(noise))
