"""What the verbs return."""

from dataclasses import dataclass, fields
from typing import Any

import torch

from ddcm.recipes import Recipe


@dataclass(frozen=True)
class Info:
    """Settings that were used and measurements made on the way. None: does not apply to the verb."""

    backbone: str | None = None
    latent_digest: str | None = None
    recipe: Recipe | None = None
    features: str | None = None
    """the front end that made the mel"""
    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    unet_steps: int | None = None
    """denoising steps that were taken"""
    usage: float | None = None
    """share of the codebook's atoms that occur in the latent"""
    perplexity: float | None = None
    """of the atoms' frequencies in the latent"""
    vocoder: str | None = None
    """the one that made the audio"""
    vocoder_failed: tuple[str, ...] = ()
    """for each vocoder of the chain that failed before it: its name and why"""
    high_lift: float | None = None
    """factor on the magnitudes of the high bands"""
    windows: int | None = None
    """of a streamed recording"""
    clap_score: float | None = None
    """similarity of audio and prompt by CLAP, where candidates were ranked"""
    mode: str | None = None
    """of a ``.ddcm`` file"""
    kbps: float | None = None
    """of a ``.ddcm`` file"""

    def list_used(self) -> dict[str, Any]:
        """Entries that apply, by name, without the recipe."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "recipe"}
        return {name: value for name, value in values.items() if value not in (None, ())}


@dataclass(frozen=True)
class Output:
    """What a verb returns. Tensors are on the CPU."""

    audio: torch.Tensor
    """(S,) float32, as long as the input, at the input's level."""
    sample_rate: int
    mel: torch.Tensor
    """(1, 1, T, M): the vocoder's input."""
    latent: torch.Tensor
    """(W, C, L, F): the decoded z, a row for each window of 10.24 s."""
    info: Info = Info()
    others: tuple["Output", ...] = ()
    """The other candidates of several: by falling CLAP score, without a prompt by seed."""
    trace: tuple[tuple[int, torch.Tensor], ...] = ()
    """(timestep, log-mel (1, 1, T, M)) of the first window's x0 estimates, where a trace was asked for."""
