"""From a noised latent, or from noise alone, down to a clean one, with a codebook acting where the recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ddcm.audio import windows
from ddcm.backbone import Backbone
from ddcm.diffusion.loop import Project, denoise_loop, identity
from ddcm.diffusion.noise import latent_noise
from ddcm.diffusion.schedule import add_noise, from_strength
from ddcm.quantize import Quantizer
from ddcm.quantize.mixture import soften
from ddcm.recipes import Recipe
from ddcm.runtime.progress import OnStep

TRACED = 8  # estimates that a trace keeps


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser is told besides the latent."""

    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0


@dataclass
class Trace:
    """Estimates of the first window on the way down: (timestep, x0 (1, C, L, F) on the CPU)."""

    estimates: list[tuple[int, torch.Tensor]] = field(default_factory=list)


def quantise(z: torch.Tensor, recipe: Recipe, quantizer: Quantizer) -> torch.Tensor:
    """z (B, C, L, F) -> its nearest atoms whatever the quantizer was fitted as, or a soft mixture of the atoms."""
    if recipe.quantizer == "soft":
        return soften(z, quantizer.codebook, recipe.temperature)
    return quantizer.decode(quantizer.encode(z))


def code_notes(z: torch.Tensor, quantizer: Quantizer) -> dict[str, float]:
    """What the codebook did to a recording: ``usage``, share of atoms met, and ``perplexity`` of their frequencies."""
    return usage_notes(code_counts(z, quantizer))


def code_counts(z: torch.Tensor, quantizer: Quantizer) -> torch.Tensor:
    """How often each atom is met: float64 (K,)."""
    return torch.bincount(quantizer.encode(z).flatten(), minlength=quantizer.codebook_size).double()


def usage_notes(counts: torch.Tensor) -> dict[str, float]:
    """``code_notes`` of counts (K,)."""
    entropy = torch.special.entr(counts / counts.sum()).sum()
    return {"usage": float((counts > 0).double().mean()), "perplexity": float(entropy.exp())}


def projection(recipe: Recipe, quantizer: Quantizer | None, steps: int) -> Project:
    """Where the codebook acts on the estimates of a loop of ``steps``."""
    if quantizer is None or recipe.acts_on not in ("estimates", "late-estimates"):
        return identity
    first = steps // 2 if recipe.acts_on == "late-estimates" else 0
    return lambda i, x0: quantise(x0, recipe, quantizer) if i >= first else x0


def timeline_noise(seed: int, frames: int, like: Sequence[int], device) -> torch.Tensor:
    """Noise for each window of ``frames`` mel frames (W, C, L, F); windows share it where they overlap.

    ``like`` is a window's (C, L, F).
    """
    channels, length, bands = like
    timeline = latent_noise(seed, frames // 4, channels, bands)
    first = [start // 4 for start in windows.window_starts(frames)]
    return torch.stack([timeline[:, start : start + length] for start in first]).to(device)


def window_shape(backbone: Backbone, frames: int) -> tuple[int, int, int]:
    """(C, L, F) of the windows over ``frames`` mel frames."""
    return backbone.latent_channels, min(frames, windows.FRAMES) // 4, backbone.mel_spec.n_mels // 4


def diffuse(
    backbone: Backbone, quantizer: Quantizer | None, recipe: Recipe, words: Conditioning, frames: int, batch_size: int,
    z: torch.Tensor | None = None, on_step: OnStep | None = None, trace: Trace | None = None,
    noise: torch.Tensor | None = None,
) -> tuple[torch.Tensor, int]:  # fmt: skip
    """The latents (W, C, L, F) of all windows over ``frames`` mel frames, and the number of steps that were taken.

    Args:
        z: the input's latents, taken up to the recipe's strength; without them the start is noise alone.
        trace: filled with up to ``TRACED`` estimates.
        noise: (W, C, L, F) instead of the timeline's own of ``words.seed``: where z is some windows of many.
    """
    timesteps = from_strength(recipe.strength, recipe.steps) if z is not None else from_strength(1.0, recipe.steps)
    if timesteps:
        if noise is None:
            noise = timeline_noise(words.seed, frames, window_shape(backbone, frames), backbone.device)
        start = noise if z is None else add_noise(z, noise, float(backbone.alphas_cumprod[timesteps[0]]))
        z = _down(backbone, quantizer, recipe, words, timesteps, start, batch_size, on_step, trace)
    assert z is not None, "from noise there is at least one step"
    if quantizer is not None and recipe.acts_on == "output":
        z = torch.cat([quantise(batch, recipe, quantizer) for batch in z.split(batch_size)])
    return z, len(timesteps)


def _down(backbone, quantizer, recipe, words, timesteps, x, batch_size, on_step, trace) -> torch.Tensor:
    denoise = backbone.denoiser(words.prompt, words.negative_prompt, recipe.guidance_scale)
    project = projection(recipe, quantizer, len(timesteps))
    results, in_all = [], len(timesteps) * -(-len(x) // batch_size)
    kept = {round(i * (len(timesteps) - 1) / (TRACED - 1)) for i in range(TRACED)}
    for number, batch in enumerate(x.split(batch_size)):

        def step(i: int, x0: torch.Tensor, number=number) -> None:
            if trace is not None and number == 0 and i in kept:
                trace.estimates.append((timesteps[i], x0[:1].cpu()))
            if on_step is not None:
                on_step(number * len(timesteps) + i + 1, in_all)

        results.append(
            denoise_loop(denoise, batch, timesteps, backbone.alphas_cumprod,
                         project=project, solver=recipe.solver, on_step=step)
        )  # fmt: skip
    backbone.check()
    return torch.cat(results)
