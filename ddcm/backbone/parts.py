"""The components of a latent diffusion model: where they come from, and facts of their configs."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from ddcm.backbone.base import Condition


class Parts(Protocol):
    """Where components come from: a diffusers folder, or random numbers. Each is made when it is first needed."""

    configs: dict[str, dict[str, Any]]  # of vae, unet, vocoder and scheduler

    def make(self, part: str) -> torch.nn.Module: ...  # float32, on the CPU
    def digest(self, part: str) -> str: ...  # of the weights, hexadecimal
    def count(self, part: str) -> int: ...  # of the weights, 0 where they are missing or not downloaded; loads nothing
    def encode(self, prompt: str, device: torch.device) -> Condition: ...  # float32; the encoders are dropped then
    def encode_empty(self) -> tuple[torch.Tensor, torch.Tensor]: ...  # T5(""): hidden states (1, n, D), mask (1, n)
    def extractor(self) -> dict[str, Any] | None: ...  # settings of the CLAP feature extractor
    def clap_scores(  # cosines; audios (S,) at ``rate`` Hz
        self, audios: Sequence[torch.Tensor], rate: int, prompt: str, device: torch.device
    ) -> list[float]: ...


def digest_of(*values: Any) -> str:
    """16 hexadecimal digits that name JSON-able values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def count_heads(unet: dict[str, Any], heads: str) -> list[int]:
    """Attention heads of each UNet level: as its config says, or channels / 32 as in the original network."""
    channels = unet["block_out_channels"]
    if heads == "original":
        return [max(1, width // 32) for width in channels]
    count = unet["attention_head_dim"]  # diffusers calls the number of heads their dimension
    return list(count) if isinstance(count, list | tuple) else [count] * len(channels)


def text_widths(unet: dict[str, Any]) -> tuple[int, ...]:
    """Widths of GPT-2's and of T5's hidden states. None in the config stands for self-attention."""
    return tuple(width for width in (unet.get("cross_attention_dim") or [[]])[-1] if width is not None)
