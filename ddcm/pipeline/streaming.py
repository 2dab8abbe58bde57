"""Reconstruct and transform recordings of any length in constant memory: windows come, are worked on, and go.

What comes out is what ``DDCMPipeline`` gives of the whole (tests/pipeline/test_streaming.py). Recipes that must see a
whole recording before they can give its first sample (limits, high-band lift, finishes, several candidates) stay there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ddcm.audio import windows
from ddcm.audio.recording import SpooledAudio
from ddcm.backbone.vocoding import vocode_stream
from ddcm.codec.layout import Layout
from ddcm.codec.sound import window_mel
from ddcm.diffusion.noise import NoiseTimeline
from ddcm.pipeline import DDCMPipeline
from ddcm.pipeline.denoise import Conditioning, OnStep, code_counts, diffuse, quantise, usage_notes
from ddcm.recipes import Recipe


def can_stream(recipe: Recipe) -> bool:
    """Whether every step of the recipe looks at a window and its neighbours alone."""
    local = (recipe.features, recipe.mode_share, recipe.limiter, recipe.after) == ("matched", 1.0, "none", "none")
    return local and not recipe.high_lift and recipe.n == 1 and recipe.vocoder in ("backbone", "refined")


def stream(
    pipe: DDCMPipeline, recording: SpooledAudio, recipe: Recipe, words: Conditioning | None, notes: dict[str, Any],
    on_step: OnStep | None = None,
) -> Iterator[torch.Tensor]:  # fmt: skip
    """Audio (S,) piece by piece, as long as the recording in all and at its level.

    ``words`` are of ``transform``; ``reconstruct`` has none. ``notes`` is filled on the way.
    """
    spec, left = pipe.backbone.mel_spec, len(recording)
    total = -(-left // (4 * spec.hop)) * 4
    first = windows.window_starts(total)
    placed = Layout(total, min(total, windows.FRAMES), tuple(first))
    notes |= {"backbone": pipe.backbone.name, "vocoder": recipe.vocoder, "windows": len(first)}
    mels = windows.cross_fade_stream(_mels(pipe, recording, placed, recipe, words, notes, on_step), first)
    for audio in vocode_stream(mels, recipe.vocoder, pipe.backbone):
        audio = audio[:left]
        left -= len(audio)
        yield recording.level.undo(audio)


def _mels(pipe, recording, placed: Layout, recipe: Recipe, words, notes, on_step) -> Iterator[torch.Tensor]:
    """Decoded windows (1, 1, T, M), ``batch_size`` of them worked on at a time."""
    backbone, quantizer = pipe.backbone, pipe.quantizer_for(recipe)
    channels, bands = backbone.latent_channels, backbone.mel_spec.n_mels // 4
    timeline = NoiseTimeline(words.seed if words else 0, channels, bands)
    groups = torch.arange(len(placed.starts)).split(pipe.batch_size)
    counts: torch.Tensor | None = None
    for number, group in enumerate(groups):
        mel = torch.cat([_mel(recording, placed, int(window), backbone.mel_spec) for window in group])
        z = backbone.encode(mel)
        coded = None  # what the notes on the codebook are of
        if quantizer is not None and recipe.acts_on == "input":
            z = coded = quantise(z, recipe, quantizer)
        if words is not None:
            begins = [placed.starts[window] // 4 for window in group]
            noise = torch.stack([timeline.read(begin, begin + placed.latent_frames) for begin in begins])
            step = None
            if on_step is not None:
                step = lambda done, of, number=number: on_step(number * of + done, len(groups) * of)  # noqa: E731
            z, notes["unet_steps"] = diffuse(
                backbone, quantizer, recipe, words, placed.size, pipe.batch_size, z, step, noise=noise.to(z.device)
            )
        if recipe.quantizer == "hard":
            found = code_counts(z if coded is None else coded, quantizer)
            counts = found if counts is None else counts + found
            notes |= usage_notes(counts)
        yield from backbone.decode(z).cpu().split(1)


def _mel(recording: SpooledAudio, placed: Layout, window: int, spec) -> torch.Tensor:
    return window_mel(recording, recording.level.mean, recording.level.gain, placed, window, spec)
