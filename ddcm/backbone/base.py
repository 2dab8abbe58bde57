"""What the rest of the package may ask of a backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from ddcm.audio.mel import MelSpec


@dataclass(frozen=True)
class Condition:
    """What the UNet is told besides the noisy latent. Each row is repeated until the latent's batch has its own."""

    generated: torch.Tensor
    """(1, 8, 768): GPT-2's continuation of the prompt, AudioLDM2's stand-in for AudioMAE features."""
    text: torch.Tensor
    """(1, length, 1024): T5's hidden states."""
    mask: torch.Tensor
    """(1, length) int64: 1 where ``text`` is real."""

    def filled(self, length: int) -> Condition:
        """The same with a text of ``length``, which is not less than its own; what is added is masked."""
        size = 0, length - self.text.shape[1]
        return Condition(self.generated, pad(self.text, (0, 0, *size)), pad(self.mask, size))

    @classmethod
    def stack(cls, *conditions: Condition) -> Condition:
        """Several as one of batch len(conditions), for one call: shorter texts are filled up and masked."""
        longest = max(condition.text.shape[1] for condition in conditions)
        equal = [condition.filled(longest) for condition in conditions]
        return cls(*(torch.cat([getattr(c, name) for c in equal]) for name in ("generated", "text", "mask")))


class Backbone(ABC):
    """A frozen latent diffusion model of audio. All tensors live on ``device``.

    Shapes (see ``ddcm/__init__.py`` for the letters): mel (B, 1, T, M) with T a multiple of 4, latents
    (B, C, L, F) with L = T/4 and F = M/4. Weights never learn; gradients flow to
    an input that asks for them.
    """

    name: str
    """Hub name or folder, as given."""
    mel_spec: MelSpec
    latent_channels: int
    scaling_factor: float
    """z = z_raw * scaling_factor."""
    alphas_cumprod: torch.Tensor
    """(1000,) float64 on the CPU: the share of signal variance left at each timestep."""
    device: torch.device
    dtype: torch.dtype = torch.float32
    """Arithmetic of the UNet."""
    heads: str = "its own"
    """Head layout of the UNet: ``hub`` or ``original`` where there is a choice."""
    null: str = "trained"
    """The condition that stands for no prompt: ``trained`` or ``stock`` where there is a choice."""

    @property
    @abstractmethod
    def latent_digest(self) -> str:
        """Names the latent space (VAE weights, scaling, mel): what codebooks and latent caches belong to."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Names the whole denoiser: latent space, UNet weights, head layout, schedule."""

    def digest_with(self, heads: str) -> str:
        """What ``digest`` would be with another head layout of the UNet, where there is a choice."""
        return self.digest

    @abstractmethod
    def posterior(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """mel (B, 1, T, M) -> mean and standard deviation of z_raw, each (B, C, L, F), float32."""

    def encode(self, mel: torch.Tensor) -> torch.Tensor:
        """mel (B, 1, T, M) -> z (B, C, L, F): the posterior's mode, scaled."""
        return self.posterior(mel)[0] * self.scaling_factor

    @abstractmethod
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """z (B, C, L, F) -> mel (B, 1, T, M), float32."""

    @abstractmethod
    def vocode(self, mel: torch.Tensor, dtype: str | None = None) -> torch.Tensor:
        """mel (B, 1, T, M) -> audio (B, hop * T), float32; computed in ``dtype`` where one is named."""

    @abstractmethod
    def condition(self, prompt: str) -> Condition:
        """The condition of one prompt. Encoded alone, because batch mates would change it; cached."""

    @abstractmethod
    def null_condition(self) -> Condition:
        """The condition of no prompt at all. Needs no text encoder once it is cached."""

    def extractor(self) -> dict[str, Any] | None:
        """The settings of the CLAP feature extractor that comes with the backbone; None where there is none."""
        return None

    @abstractmethod
    def clap_scores(self, audios: Sequence[torch.Tensor], prompt: str) -> list[float]:
        """Cosines in [-1, 1] between CLAP's embeddings of audios (S,) at the mel's rate and of the prompt.

        Each audio is scored alone and from its first ten seconds: the extractor's own crop is random.
        """

    @abstractmethod
    def eps(self, x: torch.Tensor, t: int | torch.Tensor, condition: Condition) -> torch.Tensor:
        """The UNet's estimate of the noise in x (B, C, L, F) at timestep t, one for all or one each (B,); float32.

        Nothing here waits for the device: whether the numbers were finite is asked by ``check``.
        """

    def check(self) -> None:  # noqa: B027  a backbone that always computes in float32 on the CPU has nothing to ask
        """To be called after a loop of ``eps``.

        Raises:
            UserError: one of them gave NaN or infinity.
        """

    def x0(self, x: torch.Tensor, t: int, condition: Condition) -> torch.Tensor:
        """The estimate of the clean latent: (x - sqrt(1 - abar) eps) / sqrt(abar)."""
        return self.x0_from_eps(x, t, self.eps(x, t, condition))

    def x0_from_eps(self, x: torch.Tensor, t: int, eps: torch.Tensor) -> torch.Tensor:
        abar = float(self.alphas_cumprod[t])
        return (x - (1 - abar) ** 0.5 * eps) / abar**0.5

    def denoiser(self, prompt: str = "", negative_prompt: str = "", guidance_scale: float = 1.0):
        """``denoise(x, t) -> x0`` with classifier-free guidance inside (arXiv 2207.12598).

        eps = eps_null + guidance_scale (eps_prompt - eps_null), both from one UNet call of twice the batch. No
        prompt, or a scale of 1: a call of the batch itself.
        """
        wanted = self.condition(prompt) if prompt else self.null_condition()
        if not prompt or guidance_scale == 1.0:
            return lambda x, t: self.x0(x, t, wanted)
        both = Condition.stack(self.condition(negative_prompt) if negative_prompt else self.null_condition(), wanted)

        def denoise(x: torch.Tensor, t: int) -> torch.Tensor:
            eps_other, eps_wanted = self.eps(torch.cat([x, x]), t, both).chunk(2)
            return self.x0_from_eps(x, t, eps_other + guidance_scale * (eps_wanted - eps_other))

        return denoise
