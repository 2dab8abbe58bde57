"""A backbone of one's own: block cosine transforms instead of a VAE, a Gaussian instead of a UNet, Griffin-Lim instead
of a vocoder. Nothing in it learns, so it shows the whole contract in one page.

    python infer.py reconstruct examples/bird.flac -o out/blocks.wav --backbone docs.examples.backbone:Blocks

A name ``module:Class`` is imported and called with the options of ``ddcm.backbone.load``. Codebooks and ``.ddcm`` files
know it by its digests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ddcm.audio.griffin_lim import griffin_lim
from ddcm.audio.mel import MelSpec
from ddcm.backbone import Backbone, Condition
from ddcm.backbone.parts import digest_of

MEAN, KEPT = -6.0, 8  # nats: where log-mels lie; coefficients of a block of 4 x 4
LOWEST_FIRST = sorted(range(16), key=lambda i: (i // 4 + i % 4, i))[:KEPT]


class Blocks(Backbone):
    """The latent of a cell: the eight lowest frequencies of its block of four frames and four bands."""

    def __init__(self, device: str = "cpu", **_):
        self.name, self.device = "blocks", torch.device(device)
        self.mel_spec, self.latent_channels, self.scaling_factor = MelSpec(), KEPT, 0.25
        betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64).square()
        self.alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        frequency, place = torch.arange(4.0)[:, None], torch.arange(4.0) + 0.5
        cosines = (torch.pi / 4 * frequency * place).cos() * math.sqrt(0.5)
        cosines[0] *= math.sqrt(0.5)
        self._basis = torch.kron(cosines, cosines)[LOWEST_FIRST].to(device)  # [8, 16], orthonormal rows

    @property
    def latent_digest(self) -> str:
        return digest_of("blocks", LOWEST_FIRST, MEAN, self.scaling_factor, self.mel_spec.to_dict())

    @property
    def digest(self) -> str:
        return self.latent_digest

    def posterior(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, _, frames, bands = mel.shape
        blocks = (mel.to(self.device) - MEAN).reshape(batch, frames // 4, 4, bands // 4, 4)
        blocks = blocks.transpose(2, 3).flatten(3)  # [B, L, F, 16]
        mean = (blocks @ self._basis.T).permute(0, 3, 1, 2)
        return mean, torch.zeros_like(mean)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        blocks = (z / self.scaling_factor).permute(0, 2, 3, 1) @ self._basis  # [B, L, F, 16]
        batch, length, bands, _ = blocks.shape
        mel = blocks.reshape(batch, length, bands, 4, 4).transpose(2, 3)
        return mel.reshape(batch, 1, 4 * length, 4 * bands) + MEAN

    def vocode(self, mel: torch.Tensor, dtype: str | None = None) -> torch.Tensor:
        return torch.stack([griffin_lim(one[None], self.mel_spec) for one in mel])

    def condition(self, prompt: str) -> Condition:
        return Condition(torch.zeros(1, 8, 1), torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.long))

    def null_condition(self) -> Condition:
        return self.condition("")

    def clap_scores(self, audios: Sequence[torch.Tensor], prompt: str) -> list[float]:
        return [0.0] * len(audios)  # it cannot read

    def eps(self, x: torch.Tensor, t: int | torch.Tensor, condition: Condition) -> torch.Tensor:
        """The best guess where latents are unit normal: x0 = sqrt(abar) x, so eps = sqrt(1 - abar) x."""
        abar = self.alphas_cumprod[torch.as_tensor(t).cpu()].to(x).reshape(-1, 1, 1, 1)
        return (1 - abar).sqrt() * x
