"""Which head layout fits a UNet's weights: the layout of the training predicts noise better."""

import math
from typing import Any, get_args

import torch

from ddcm.audio.files import read_audio
from ddcm.audio.level import normalise_level
from ddcm.audio.mel import log_mel
from ddcm.backbone import load
from ddcm.backbone.base import Backbone
from ddcm.diffusion.noise import latent_noise
from ddcm.diffusion.timesteps import add_noise
from ddcm.errors import UserError
from ddcm.recipes import Heads

TIMESTEPS = (50, 150, 300, 450, 600, 750, 900)
LAYOUTS = get_args(Heads)
DRAWS = 2  # noises at each timestep
CLEAR = 0.01  # a smaller mean relative difference of errors is no verdict


def check_heads(name: str, audio_path: str, seed: int = 0, **options) -> dict[str, Any]:
    """Noise-prediction error of both layouts on up to ten seconds of audio, as facts to print. The error is the mean
    squared error of eps under the null condition, with the same noise for both layouts. They are ranked by the mean log
    ratio of their errors over timesteps, so that all timesteps count the same. ``options`` are those of
    ``ddcm.backbone.load``. Raises UserError: audio shorter than one latent frame (40 ms)."""
    errors: dict[str, list[float]] = {}
    latent: torch.Tensor | None = None
    for heads in LAYOUTS:  # one UNet in memory at a time
        backbone = load(name, heads=heads, **options)
        if latent is None:
            latent = _encode(backbone, audio_path)
        errors[heads] = [_measure_error(backbone, latent, t, seed) for t in TIMESTEPS]
        backbone.check()
        del backbone
    facts = {f"noise error, timestep {t}": ", ".join(f"{heads} {errors[heads][i]:.5f}" for heads in LAYOUTS)
             for i, t in enumerate(TIMESTEPS)}  # fmt: skip
    return facts | {"verdict": verdict(errors)}


def verdict(errors: dict[str, list[float]]) -> str:
    """A sentence on the errors of ``LAYOUTS`` at each timestep."""
    hub, original = (errors[heads] for heads in LAYOUTS)
    gap = sum(math.log(b / a) for a, b in zip(hub, original, strict=True)) / len(hub)
    better = "hub" if gap > 0 else "original"
    wins = sum((b > a) == (better == "hub") for a, b in zip(hub, original, strict=True))
    share = f"{100 * (1 - math.exp(-abs(gap))):.1f} % less error, lower at {wins} of {len(hub)} timesteps"
    if abs(gap) < CLEAR or 3 * wins < 2 * len(hub):
        return f"undecided: {better} has {share}; keep --heads hub, what the stock pipeline computes"
    advice = "the default" if better == "hub" else "give --heads original; it is part of the digest of .ddcm files"
    return f"{better}: {share}; {advice}"


def _encode(backbone: Backbone, audio_path: str) -> torch.Tensor:
    spec = backbone.mel_spec
    audio = normalise_level(read_audio(audio_path, spec.sample_rate))[0][: spec.sample_rate * 10]
    size = len(audio) // (4 * spec.hop) * 4 * spec.hop
    if size == 0:
        raise UserError(f"{audio_path}: shorter than one latent frame (40 ms)")
    return backbone.encode(log_mel(audio[None, :size], spec))


@torch.no_grad()
def _measure_error(backbone: Backbone, z: torch.Tensor, t: int, seed: int) -> float:
    null, total = backbone.null_condition(), 0.0
    for draw in range(DRAWS):
        noise = latent_noise(seed + draw, z.shape[2], z.shape[1], z.shape[3])[None].to(z)
        estimate = backbone.eps(add_noise(z, noise, float(backbone.alphas_cumprod[t])), t, null)
        total += float((estimate - noise).square().mean())
    return total / DRAWS
