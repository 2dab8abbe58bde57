"""What the codec needs of a latent diffusion model. ``ddcm.backbone.base.Backbone`` is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from typing import Any, Protocol

import torch

from ddcm.audio.mel import MelSpec


class LatentDiffusion(Protocol):
    """A frozen denoiser of latents, with the codec's way to mel and audio. Shapes: see ``ddcm/__init__.py``."""

    name: str
    mel_spec: MelSpec
    scaling_factor: float
    """z = z_raw * scaling_factor"""
    alphas_cumprod: torch.Tensor
    """(1000,) share of signal variance at each timestep"""
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """of the UNet"""

    @property
    def null(self) -> str:
        """what no prompt means: ``trained`` or ``stock``"""

    @property
    def digest(self) -> str:
        """names the denoiser"""

    @property
    def latent_digest(self) -> str:
        """names the latent space"""

    def digest_with(self, heads: str) -> str: ...

    def posterior(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """mel (B, 1, T, M) -> mean and standard deviation of z_raw (B, C, L, F)"""

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """z (B, C, L, F) -> mel (B, 1, T, M)"""

    def vocode(self, mel: torch.Tensor) -> torch.Tensor:
        """mel (B, 1, T, M) -> audio (B, hop * T)"""

    def condition(self, prompt: str) -> Any: ...

    def null_condition(self) -> Any: ...

    def eps(self, x: torch.Tensor, t: int, condition: Any) -> torch.Tensor:
        """the noise in x (B, C, L, F) at timestep t"""

    def x0_from_eps(self, x: torch.Tensor, t: int, eps: torch.Tensor) -> torch.Tensor: ...

    def denoiser(
        self, prompt: str, negative_prompt: str, guidance_scale: float
    ) -> Callable[[torch.Tensor, int], torch.Tensor]:
        """``denoise(x, t) -> x0`` with guidance inside"""

    def check(self) -> None:
        """Raises UserError if an ``eps`` since the last call was not finite."""


def header_fields(model: LatentDiffusion) -> dict[str, Any]:
    """The fields of the header that describe the model."""
    return dict(
        backbone=model.digest, mel=astuple(model.mel_spec), stock_null=model.null == "stock",
        dtype=str(model.dtype).removeprefix("torch."),
    )  # fmt: skip
