"""Reconstruct and transform recordings of any length in constant memory, window by window.

The audio is what ``DDCMPipeline`` makes of the whole (tests/pipeline/test_streaming.py). Recipes that need the whole
recording before its first sample (limits, high-band lift, postprocessing, several candidates) cannot be streamed.
"""

from collections.abc import Callable, Iterator

import torch

from ddcm.audio.layout import Layout, fixed_layout
from ddcm.audio.recording import SpooledAudio
from ddcm.audio.windows import cross_fade_stream, window_mel
from ddcm.backbone.vocoding import vocode_stream
from ddcm.diffusion.noise import NoiseTimeline
from ddcm.pipeline.denoise import list_timesteps, sample
from ddcm.pipeline.encode import count_encode_steps
from ddcm.pipeline.output import Info
from ddcm.pipeline.quantise import add_usage, count_codes, quantise
from ddcm.pipeline.render import count_render_steps
from ddcm.pipeline.stages import Conditioning, Setup
from ddcm.recipes import Recipe
from ddcm.runtime.progress import OnStep, Progress


def can_stream(recipe: Recipe) -> bool:
    """Whether every stage of the recipe needs a window and its neighbours alone."""
    local = (recipe.features, recipe.mode_share, recipe.limiter, recipe.after) == ("matched", 1.0, "none", "none")
    return local and not recipe.high_lift and recipe.n == 1 and recipe.vocoder in ("backbone", "refined")


def stream(
    setup: Setup, recording: SpooledAudio, write: Callable[[torch.Tensor], None],
    conditioning: Conditioning | None = None, seed: int = 0, on_step: OnStep | None = None,
) -> Info:  # fmt: skip
    """``write`` audio (S,) piece by piece, as long as the recording in all and at its level. With a ``conditioning``
    the recording is transformed, without one it is reconstructed."""
    backbone, recipe = setup.backbone, setup.recipe
    layout = fixed_layout(-(-len(recording) // (4 * backbone.mel_spec.hop)) * 4)
    steps = None if conditioning is None else len(list_timesteps(recipe))
    total = count_encode_steps(setup, layout.total) * (1 + (steps or 0)) + count_render_steps(setup, layout.total)
    progress = Progress(on_step, total)
    latents = _make_latents(setup, recording, layout, conditioning, seed, progress)
    counts: torch.Tensor | None = None
    left = len(recording)

    def decode() -> Iterator[torch.Tensor]:
        nonlocal counts
        for z, codes in latents:
            if codes is not None:
                counts = codes if counts is None else counts + codes
            decoded = backbone.decode(z).cpu()
            progress.step()
            yield from decoded.split(1)

    for audio in vocode_stream(cross_fade_stream(decode(), layout.starts), recipe.vocoder, backbone, progress):
        write(recording.level.undo(audio[:left]))
        left -= len(audio[:left])
    info = Info(backbone.name, vocoder=recipe.vocoder, windows=len(layout.starts), unet_steps=steps)
    return info if counts is None else add_usage(info, counts)


def _make_latents(
    setup: Setup, recording: SpooledAudio, layout: Layout, conditioning: Conditioning | None, seed: int,
    progress: Progress,
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:  # fmt: skip
    """Clean latents (W, C, L, F) of ``batch_size`` windows at a time, and how often each atom is in them (K,)."""
    backbone, recipe, quantizer, level = setup.backbone, setup.recipe, setup.quantizer, recording.level
    timeline = NoiseTimeline(seed, backbone.latent_channels, backbone.mel_spec.n_mels // 4)
    timesteps = list_timesteps(recipe)
    for group in torch.arange(len(layout.starts)).split(setup.batch_size):
        mels = [window_mel(recording, level, layout, int(i), backbone.mel_spec) for i in group]
        quantised = z = backbone.encode(torch.cat(mels))
        progress.step()
        if quantizer is not None and recipe.acts_on == "input":
            quantised = z = quantise(z, recipe, quantizer)
        if conditioning is not None:
            starts = [layout.starts[i] // 4 for i in group]
            noise = torch.stack([timeline.read(start, start + layout.latent_frames) for start in starts])
            z, _ = sample(setup, conditioning, timesteps, noise.to(z.device), z, progress)
        counted = quantised if recipe.acts_on == "input" else z
        yield z, count_codes(counted, quantizer) if quantizer is not None and recipe.quantizer == "hard" else None
