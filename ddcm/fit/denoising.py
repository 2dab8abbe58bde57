"""How hard quantised latents are for the frozen diffusion model: an optional term of the loss, and its measure."""

from __future__ import annotations

import torch

from ddcm.backbone import Backbone
from ddcm.runtime.distributed import rank, sum_over_ranks, world_size

GOLDEN = 0.6180339887498949  # its multiples fill [0, 1) evenly, however many there are


def clear_timesteps(alphas_cumprod: torch.Tensor) -> int:
    """How many timesteps, from 0 up, have at least as much signal as noise in x (abar >= 1/2).

    Only there is quantisation seen: further up the noise drowns it, and the UNet makes the same error whatever the
    atoms are. Of AudioLDM2's 1000 timesteps these are the first 250 or so.
    """
    return max(1, int((alphas_cumprod >= 0.5).sum()))


def denoising_error(backbone: Backbone, z: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Of the UNet without a prompt, for each sample of z (B, C, L, F): mean |eps(x, t) - noise|^2, (B,).

    x = sqrt(abar) z + sqrt(1 - abar) noise, for timesteps t (B,). Latents that the model finds likely give a small
    error. Gradients go to z.
    """
    abar = backbone.alphas_cumprod.cpu()[t].to(z)[:, None, None, None]
    x = abar.sqrt() * z + (1 - abar).sqrt() * noise.to(z)
    estimate = backbone.eps(x, t, backbone.null_condition())
    backbone.check()
    return (estimate - noise.to(z)).square().mean(dim=(1, 2, 3))


def diffusion_loss(backbone: Backbone, z: torch.Tensor, seed: int) -> torch.Tensor:
    """The mean of ``denoising_error`` at random clear timesteps, with gradients to z (B, C, L, F).

    Each sample of all ranks has a timestep of its own, one from each of as many equal ranges, which varies less than
    free draws. Timesteps and noise come from ``seed`` on the CPU, so a step can be repeated; ranks take their share
    as they do of a batch, so several are one with the larger batch.
    """
    generator, total = torch.Generator().manual_seed(seed % 2**63), len(z) * world_size()
    place = (torch.arange(total) + torch.rand(total, generator=generator)) / total
    t = (place * clear_timesteps(backbone.alphas_cumprod)).long()
    noise = torch.randn(total, *z.shape[1:], generator=generator)
    mine = slice(rank(), None, world_size())
    return denoising_error(backbone, z, t[mine], noise[mine]).mean()


def fixed_errors(backbone: Backbone, z: torch.Tensor, numbers: list[int]) -> torch.Tensor:
    """``denoising_error`` (B,) of z at clear timesteps that depend on the samples' numbers alone, as the noise does.

    So two codebooks are compared sample by sample, and the difference is theirs.
    """
    last = clear_timesteps(backbone.alphas_cumprod)
    t = torch.tensor([int(number * GOLDEN % 1 * last) for number in numbers])
    noise = [torch.randn(z.shape[1:], generator=torch.Generator().manual_seed(number)) for number in numbers]
    return denoising_error(backbone, z, t, torch.stack(noise))


class DenoisingTally:
    """``fixed_errors`` over validation batches and ranks.

    Args:
        windows: of each batch that are denoised: a pass of the UNet costs more than all the rest of a validation.
    """

    def __init__(self, backbone: Backbone, windows: int):
        self.backbone, self.windows = backbone, windows
        self.sums = torch.zeros(2, dtype=torch.float64, device=backbone.device)  # of errors, of windows

    @torch.no_grad()
    def add(self, z: torch.Tensor, batch_index: int) -> None:
        """Quantised z (B, C, L, F) of this rank's batch number ``batch_index``."""
        z = z[: self.windows]
        first = batch_index * self.windows
        errors = fixed_errors(self.backbone, z, [(first + i) * world_size() + rank() for i in range(len(z))])
        self.sums += torch.stack([errors.double().sum(), self.sums.new_tensor(len(z))])

    def figures(self) -> dict[str, float]:
        """Every rank has to call it."""
        sum_over_ranks(self.sums)
        return {"denoising_error": float(self.sums[0] / self.sums[1].clamp(min=1))}
