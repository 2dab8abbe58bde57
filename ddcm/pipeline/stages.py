"""Data that goes from one stage of a verb to the next: prepare, encode, denoise, render."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ddcm.audio.layout import fixed_layout
from ddcm.audio.level import Level
from ddcm.backbone import Backbone
from ddcm.diffusion.noise import latent_noise
from ddcm.pipeline.output import Info
from ddcm.quantize import Quantizer
from ddcm.recipes import Recipe

Estimates = Sequence[tuple[int, torch.Tensor]]  # (timestep, x0 (1, C, L, F) on the CPU) of the first window


@dataclass(frozen=True)
class Setup:
    """What all stages of one call share."""

    backbone: Backbone
    quantizer: Quantizer | None  # None where the recipe does not quantise
    recipe: Recipe
    batch_size: int  # windows that go through a network together

    def draw_noise(self, seed: int, frames: int) -> torch.Tensor:
        """Noise for each window over ``frames`` mel frames (W, C, L, F); windows share it where they overlap."""
        layout, bands = fixed_layout(frames), self.backbone.mel_spec.n_mels // 4
        timeline = latent_noise(seed, frames // 4, self.backbone.latent_channels, bands)
        starts = [start // 4 for start in layout.starts]
        return torch.stack([timeline[:, start : start + layout.latent_frames] for start in starts]).to(
            self.backbone.device
        )


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser is to follow, and what to avoid."""

    prompt: str = ""
    negative_prompt: str = ""


@dataclass(frozen=True)
class Reference:
    """Length and level of the result, and the audio that it is compared with."""

    samples: int
    frames: int  # T, mel frames, a multiple of four
    level: Level
    audio: torch.Tensor | None = None  # (hop T,) levelled, at the backbone's rate; None where there is no input


@dataclass(frozen=True)
class Prepared:
    """An input as the VAE takes it: mel (1, 1, T, M)."""

    mel: torch.Tensor
    reference: Reference
    info: Info


@dataclass(frozen=True)
class Latents:
    """Latents of all windows: z (W, C, L, F) on the backbone's device; None before anything is drawn."""

    z: torch.Tensor | None
    reference: Reference
    info: Info
    estimates: Estimates = ()
