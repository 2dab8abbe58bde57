"""What a quantizer did to a whole set of latents: error, usage, perplexity, rate."""

from __future__ import annotations

import torch

from ddcm.quantize import Quantized, Quantizer
from ddcm.runtime.distributed import sum_over_ranks


class CodeTally:
    """Sums over batches, then over ranks; figures of the whole, not means of batches' figures.

    Args:
        quantizer: says how many atoms there are and how many codes a cell takes (residual: several).
        device: of the sums.
    """

    def __init__(self, quantizer: Quantizer, device: torch.device):
        self.counts = torch.zeros(quantizer.num_quantizers, quantizer.codebook_size, dtype=torch.float64, device=device)
        self.error = torch.zeros(2, dtype=torch.float64, device=device)  # sum of squares, numbers

    def add(self, z: torch.Tensor, quantized: Quantized) -> None:
        """z (B, C, L, F) and what the quantizer made of it."""
        self.error += torch.stack(
            [(quantized.z.double() - z.double()).square().sum(), self.error.new_tensor(z.numel())]
        )
        codes = quantized.codes.reshape(len(z), len(self.counts), -1)  # [B, levels, cells]
        for level, count in enumerate(self.counts):
            count += torch.bincount(codes[:, level].flatten(), minlength=len(count))

    def figures(self, cells_per_s: float) -> dict[str, float]:
        """Of all ranks together; every rank has to call it.

        ``quantisation_error``: mean squared error per number. ``usage``: share of atoms met at least once.
        ``perplexity``: exp(entropy) of their frequencies, of the mean entropy where there are levels.
        ``bits_per_cell``: entropy of all codes of a cell, what an entropy coder that knows the frequencies would
        need; ``kbps``: the same times ``cells_per_s``.
        """
        sum_over_ranks(self.counts, self.error)
        frequency = self.counts / self.counts.sum(dim=1, keepdim=True).clamp(min=1)
        entropy = torch.special.entr(frequency).sum(dim=1)  # in nats, one for each level
        bits = float(entropy.sum() / torch.log(torch.tensor(2.0)))
        return {
            "quantisation_error": float(self.error[0] / self.error[1].clamp(min=1)),
            "usage": float((self.counts > 0).double().mean()),
            "perplexity": float(entropy.mean().exp()),
            "bits_per_cell": bits,
            "kbps": bits * cells_per_s / 1000,
        }
