"""Metrics of a quantizer over a whole set of latents: error, usage, perplexity, bit rate, denoising error.

They are ``torchmetrics``: sums over batches, added over ranks in ``compute``. So they describe the whole set, and are
not means of the batches' metrics.
"""

from typing import Any, Self

import torch
from torchmetrics import Metric

from ddcm.backbone import Backbone
from ddcm.fit.denoising import fixed_errors
from ddcm.quantize import Quantized, Quantizer
from ddcm.runtime.distributed import cpu_group, rank, world_size


class HostMetric(Metric):
    """Its states stay on the CPU in float64, whatever moves or casts the module: not every device has float64."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__(process_group=cpu_group())

    def _apply(self, *arguments: Any, **options: Any) -> Self:
        return self


class CodebookMetrics(HostMetric):
    """Quantisation error, usage, perplexity and bit rate of a quantizer, for ``cells_per_s`` cells in a second."""

    counts: torch.Tensor
    error: torch.Tensor

    def __init__(self, quantizer: Quantizer, cells_per_s: float):
        super().__init__()
        self.cells_per_s = cells_per_s
        zeros = torch.zeros(quantizer.num_quantizers, quantizer.codebook_size, dtype=torch.float64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")  # of each atom
        self.add_state("error", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")  # squared error, numbers

    def update(self, z: torch.Tensor, quantized: Quantized) -> None:
        """Add latents z (B, C, L, F) and their quantisation."""
        squared = (quantized.z.cpu().double() - z.cpu().double()).square().sum()
        self.error = self.error + torch.stack([squared, squared.new_tensor(z.numel())])
        codes = quantized.codes.cpu().reshape(len(z), len(self.counts), -1)  # [B, levels, cells]
        levels = [codes[:, level].flatten() for level in range(len(self.counts))]
        self.counts = self.counts + torch.stack([c.bincount(minlength=self.counts.shape[1]) for c in levels])

    def compute(self) -> dict[str, float]:
        """The metrics of all ranks. Every rank must call it. ``quantisation_error``: mean squared error of a latent's
        number. ``usage``: share of the atoms used at least once. ``perplexity``: exp(entropy) of the atoms'
        frequencies; with several codes a cell, of their mean entropy. ``bits_per_cell``: entropy of all codes of a
        cell, which is what an ideal entropy coder needs. ``kbps``: bits_per_cell times cells_per_s / 1000."""
        frequency = self.counts / self.counts.sum(dim=1, keepdim=True).clamp(min=1)
        entropy = torch.special.entr(frequency).sum(dim=1)  # in nats, one for each level
        bits = float(entropy.sum() / torch.log(torch.tensor(2.0)))
        return {
            "quantisation_error": float(self.error[0] / self.error[1].clamp(min=1)),
            "usage": float((self.counts > 0).double().mean()),
            "perplexity": float(entropy.mean().exp()),
            "bits_per_cell": bits,
            "kbps": bits * self.cells_per_s / 1000,
        }


class DenoisingError(HostMetric):
    """Mean of ``fixed_errors``: how hard quantised latents are for the frozen UNet to denoise. Of each batch, so many
    ``windows``: the UNet takes longer than the rest of a validation."""

    sums: torch.Tensor

    def __init__(self, backbone: Backbone, windows: int):
        super().__init__()
        self.backbone, self.windows = backbone, windows
        self.add_state("sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")  # of errors, of windows

    def update(self, quantized: Quantized, batch_index: int) -> None:
        """Add quantised latents (B, C, L, F), batch number ``batch_index`` of this rank."""
        z = quantized.z[: self.windows]
        first = batch_index * self.windows
        errors = fixed_errors(self.backbone, z, [(first + i) * world_size() + rank() for i in range(len(z))])
        self.sums = self.sums + torch.stack([errors.cpu().double().sum(), self.sums.new_tensor(len(z))])

    def compute(self) -> dict[str, float]:
        """``denoising_error`` of all ranks. Every rank must call it."""
        return {"denoising_error": float(self.sums[0] / self.sums[1].clamp(min=1))}
