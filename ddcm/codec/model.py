"""What the codec needs of a latent diffusion model, and what a file records of it."""

from dataclasses import astuple
from typing import Any, Protocol

import torch

from ddcm.audio.mel import MelSpec
from ddcm.codec.header import shorten
from ddcm.diffusion.loop import Denoiser


class LatentDiffusion(Protocol):
    """The part of ``ddcm.backbone.base.Backbone`` that the codec uses; units and shapes are explained there."""

    name: str
    mel_spec: MelSpec
    scaling_factor: float
    alphas_cumprod: torch.Tensor
    device: torch.device
    dtype: torch.dtype
    null: str

    @property
    def digest(self) -> str: ...
    @property
    def latent_digest(self) -> str: ...
    def digest_with(self, heads: str) -> str: ...
    def posterior(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]: ...
    def decode(self, z: torch.Tensor) -> torch.Tensor: ...
    def vocode(self, mel: torch.Tensor) -> torch.Tensor: ...
    def denoiser(self, prompt: str, negative_prompt: str, guidance_scale: float, cache_interval: int) -> Denoiser: ...
    def check(self) -> None: ...


def header_fields(model: LatentDiffusion) -> dict[str, Any]:
    """The fields of the header that describe the model."""
    dtype = str(model.dtype).removeprefix("torch.")
    return dict(
        backbone=shorten(model.digest), mel=astuple(model.mel_spec), stock_null=model.null == "stock", dtype=dtype
    )
