"""The contract of backbones: all that the rest of the package uses of one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad

from ddcm.audio.mel import MelSpec
from ddcm.errors import UserError

FULL_CALLS = 10
"""calls of a loop before a cache is used; files depend on it (``python -m benchmarks.caching`` compares)"""


@dataclass(frozen=True, eq=False)
class Condition:
    """Inputs of the UNet besides the noisy latent. Rows are repeated to the latent's batch."""

    generated: torch.Tensor
    """(1, 8, 768): GPT-2's continuation of the prompt, in place of AudioMAE features."""
    text: torch.Tensor
    """(1, length, 1024): T5's hidden states."""
    mask: torch.Tensor
    """(1, length) int64: 1 where ``text`` is not padding."""
    equal_keys: tuple[tuple[bool, bool], ...] = ((False, False),)
    """for each row, of ``generated`` and of ``text``: whether all that is not padding is known to be equal"""

    def pad_text(self, length: int) -> "Condition":
        """The same with the text padded to ``length``, and the padding masked."""
        size = 0, length - self.text.shape[1]
        return replace(self, text=pad(self.text, (0, 0, *size)), mask=pad(self.mask, size))

    @classmethod
    def stack(cls, *conditions: "Condition") -> "Condition":
        """Conditions as rows of one, for one call: shorter texts are padded and masked."""
        longest = max(condition.text.shape[1] for condition in conditions)
        equal = [condition.pad_text(longest) for condition in conditions]
        rows = tuple(row for condition in equal for row in condition.equal_keys)
        generated, text, mask = (torch.cat([getattr(c, name) for c in equal]) for name in ("generated", "text", "mask"))
        return cls(generated, text, mask, rows)


class FeatureCache:
    """Deep features of the UNet, kept from step to step of a denoising loop (DeepCache, arXiv 2312.00858). The first
    ``FULL_CALLS`` of a loop are full, then every ``interval``-th. Timesteps fall within a loop."""

    def __init__(self, interval: int):
        self.interval = interval
        self.features: torch.Tensor | None = None
        self._t, self._calls = -1, 0

    def start(self, t: int) -> torch.Tensor | None:
        """Begin a call at timestep t: the features to use in it, None where it is to be a full one."""
        self._calls = self._calls + 1 if t < self._t else 0
        self._t = t
        return self.features if self._calls >= FULL_CALLS and self._calls % self.interval else None


class Backbone(ABC):
    """A frozen latent diffusion model of audio. All tensors are on ``device``.

    Shapes (letters as in ``ddcm/__init__.py``): mel (B, 1, T, M) with T a multiple of 4; latents (B, C, L, F) with
    L = T/4 and F = M/4. Weights do not learn; gradients flow to an input that requires them.
    """

    name: str
    """Hub name or folder, as the user gave it."""
    mel_spec: MelSpec
    latent_channels: int
    scaling_factor: float
    """z = z_raw * scaling_factor."""
    alphas_cumprod: torch.Tensor
    """(1000,) float64 on the CPU: share of the signal in the variance at each timestep."""
    device: torch.device
    dtype: torch.dtype = torch.float32
    """Arithmetic of the UNet."""
    heads: str = "its own"
    """Head layout of the UNet: ``hub`` or ``original`` where there is a choice."""
    null: str = "trained"
    """The condition that stands for no prompt: ``trained`` or ``stock`` where there is a choice."""

    @property
    def unet_weights(self) -> int:
        """Numbers in the UNet, 0 where unknown: decides how many CPU threads pay."""
        return 0

    @property
    @abstractmethod
    def latent_digest(self) -> str:
        """Digest of the latent space (VAE weights, scaling, mel). Codebooks and latent caches belong to one."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Digest of the whole denoiser: latent space, UNet weights, head layout, schedule."""

    def digest_with(self, heads: str) -> str:
        """``digest`` with another head layout of the UNet, where there is a choice."""
        return self.digest

    def to(self, device: Any = None, dtype: Any = None, offload: bool | None = None) -> "Backbone":
        """The same on a device, with the UNet in a dtype, or with ``offload``: only the network that computes is on the
        device. None leaves each as it is. Raises UserError: the backbone cannot be moved."""
        raise UserError(f"backbone {self.name} stays where it was made; name device and dtype when you load it")

    def save_files(self, folder: Path) -> None:
        """Write the files that ``ddcm.backbone.load`` reads. Raises UserError: there are none."""
        raise UserError(f"backbone {self.name} has no files to save; save its codebook: pipe.codebook.save_pretrained")

    @abstractmethod
    def posterior(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """mel (B, 1, T, M) -> mean and standard deviation of z_raw, each (B, C, L, F), float32."""

    def encode(self, mel: torch.Tensor) -> torch.Tensor:
        """mel (B, 1, T, M) -> z (B, C, L, F): the posterior's mode, scaled."""
        return self.posterior(mel)[0] * self.scaling_factor

    @abstractmethod
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """z (B, C, L, F) -> mel (B, 1, T, M), float32. With a gradient, NaN is left to ``check``, as by ``eps``."""

    @abstractmethod
    def vocode(self, mel: torch.Tensor, dtype: str | None = None) -> torch.Tensor:
        """mel (B, 1, T, M) -> audio (B, hop * T), float32; ``dtype`` overrides the vocoder's arithmetic."""

    @abstractmethod
    def condition(self, prompt: str) -> "Condition":
        """The condition of one prompt, cached. Encoded alone: in a batch, padding would change it."""

    @abstractmethod
    def null_condition(self) -> "Condition":
        """The condition of no prompt, cached on disk: no text encoder is loaded for it."""

    def extractor(self) -> dict[str, Any] | None:
        """Settings of the backbone's CLAP feature extractor; None where there is none."""
        return None

    @abstractmethod
    def clap_scores(self, audios: Sequence[torch.Tensor], prompt: str) -> list[float]:
        """Cosines in [-1, 1] between CLAP's embeddings of audios (S,) at the mel's rate and of the prompt.

        Each audio is scored alone, by its first ten seconds: the extractor's own crop is random.
        """

    @abstractmethod
    def eps(
        self, x: torch.Tensor, t: int | torch.Tensor, condition: Condition, cache: FeatureCache | None = None
    ) -> torch.Tensor:  # fmt: skip
        """The UNet's estimate of the noise in x (B, C, L, F), float32, at timestep t, one for all or (B,).

        It does not wait for the device. ``check`` reports NaN or infinity. With a cache, t is an int.
        """

    def check(self) -> None:  # noqa: B027  nothing to check where float32 is exact enough
        """Check what was left to it since the last check, after a loop of calls. Raises UserError: one of them was
        NaN or infinity."""

    def x0(self, x: torch.Tensor, t: int, condition: Condition) -> torch.Tensor:
        """The estimate of the clean latent: (x - sqrt(1 - abar) eps) / sqrt(abar)."""
        return self.x0_from_eps(x, t, self.eps(x, t, condition))

    def x0_from_eps(self, x: torch.Tensor, t: int, eps: torch.Tensor) -> torch.Tensor:
        abar = float(self.alphas_cumprod[t])
        return (x - (1 - abar) ** 0.5 * eps) / abar**0.5

    def denoiser(
        self, prompt: str = "", negative_prompt: str = "", guidance_scale: float = 1.0, cache_interval: int = 1
    ) -> Callable[[torch.Tensor, int], torch.Tensor]:  # fmt: skip
        """``denoise(x, t) -> x0`` with classifier-free guidance inside (arXiv 2207.12598).

        eps = eps_null + guidance_scale (eps_prompt - eps_null), both from one UNet call of twice the batch. Without a
        prompt, or with a scale of 1, a call has the batch itself. With a ``cache_interval`` above 1 not every call of a
        loop computes the deep layers (``FeatureCache``); one loop then ends before the next begins.
        """
        # A backbone without deep layers to leave out need not know of a cache.
        eps = self.eps if cache_interval == 1 else partial(self.eps, cache=FeatureCache(cache_interval))
        positive = self.condition(prompt) if prompt else self.null_condition()
        if not prompt or guidance_scale == 1.0:
            return lambda x, t: self.x0_from_eps(x, t, eps(x, t, positive))
        negative = self.condition(negative_prompt) if negative_prompt else self.null_condition()
        both = Condition.stack(negative, positive)

        def denoise(x: torch.Tensor, t: int) -> torch.Tensor:
            eps_negative, eps_positive = eps(torch.cat([x, x]), t, both).chunk(2)
            return self.x0_from_eps(x, t, eps_negative + guidance_scale * (eps_positive - eps_negative))

        return denoise
