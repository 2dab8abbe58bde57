"""The first stages of a verb: audio -> mel by the recipe's front end, mel -> latents of windows."""

from dataclasses import replace
from typing import Any

import torch

from ddcm.audio.frontends import extract
from ddcm.audio.layout import fixed_layout
from ddcm.audio.level import Level, normalise_level
from ddcm.pipeline.call import read_input
from ddcm.pipeline.output import Info
from ddcm.pipeline.quantise import add_usage, count_codes, quantise
from ddcm.pipeline.stages import Latents, Prepared, Reference, Setup
from ddcm.runtime.progress import Progress

POSTERIOR_STREAM = 1 << 40  # added to the seed: the sample of the posterior and the diffusion's noise differ
LIMITS = {"strict": (3.0, 3.0), "loose": (5.0, 4.5), "balanced": (3.0, None)}
"""name -> (standard deviation above which it acts, standard deviation afterwards; None: half of the excess)"""


def start_info(setup: Setup) -> Info:
    return Info(setup.backbone.name, setup.backbone.latent_digest, setup.recipe)


def prepare(setup: Setup, audio: Any, sample_rate: Any) -> Prepared:
    """Audio, as ``read_input`` takes it -> mel, by the recipe's front end. Raises UserError: audio that is empty or not
    finite, or a rate that is none."""
    spec, recipe = setup.backbone.mel_spec, setup.recipe
    audio = read_input(audio, sample_rate, spec.sample_rate)
    levelled, moved = normalise_level(audio)
    # Silence is added to the waveform: a zero in the log-mel would be louder than most music.
    whole_cells = torch.nn.functional.pad(levelled, (0, -len(audio) % (4 * spec.hop)))
    extractor = setup.backbone.extractor() if recipe.features == "clap" else None
    mel, features = extract(recipe.features, whole_cells, spec, extractor, recipe.raw_features)
    reference = Reference(len(audio), mel.shape[2], moved, whole_cells)
    return Prepared(mel, reference, replace(start_info(setup), features=features))


def prepare_empty(setup: Setup, duration_s: float) -> Latents:
    """The start of a verb without an input: a length, and no latents yet."""
    spec = setup.backbone.mel_spec
    samples = max(1, round(duration_s * spec.sample_rate))
    frames = -(-samples // (4 * spec.hop)) * 4
    return Latents(None, Reference(samples, frames, Level(0.0, 1.0)), replace(start_info(setup), features="none"))


def count_encode_steps(setup: Setup, frames: int) -> int:
    """Batches of windows."""
    return -(-len(fixed_layout(frames).starts) // setup.batch_size)


def encode(setup: Setup, prepared: Prepared, seed: int, progress: Progress) -> Latents:
    """The latent of each window, quantised where the recipe says so; a step of progress for each batch."""
    recipe, scale, frames = setup.recipe, setup.backbone.scaling_factor, prepared.reference.frames
    layout = fixed_layout(frames)
    cut = torch.cat([prepared.mel[:, :, start : start + layout.size] for start in layout.starts])
    means, stds = [], []
    for batch in cut.split(setup.batch_size):
        if recipe.mode_share == 1:
            means.append(setup.backbone.encode(batch))
        else:
            mean, std = setup.backbone.posterior(batch)
            means.append(mean * scale)
            stds.append(std * scale)
        progress.step()
    z, info = torch.cat(means), prepared.info
    if stds:
        z = z + (1 - recipe.mode_share) * torch.cat(stds) * setup.draw_noise(seed + POSTERIOR_STREAM, frames)
    if recipe.limiter != "none":
        z = limit_std(z / scale, recipe.limiter) * scale
    if setup.quantizer is not None and recipe.acts_on == "input":
        z = torch.cat([quantise(batch, recipe, setup.quantizer) for batch in z.split(setup.batch_size)])
        info = add_usage(info, count_codes(z, setup.quantizer))
    return Latents(z, prepared.reference, info)


def limit_std(z_raw: torch.Tensor, limiter: str) -> torch.Tensor:
    """z_raw (W, C, L, F), all windows of one recording -> the same, scaled down where it spreads too far. There is one
    factor for the recording, from the standard deviation of all its numbers, so that windows stay level with each
    other. ``strict``: over 3.0 -> 3.0. ``loose``: over 5.0 -> 4.5. ``balanced``: over 3.0 -> the geometric mean of the
    deviation and 3.0, half of the excess in decibels. A latent that spreads less is returned as it is."""
    if limiter == "none" or z_raw.numel() < 2:
        return z_raw
    above, target = LIMITS[limiter]
    std = float(z_raw.cpu().double().std())
    if std <= above:
        return z_raw
    return z_raw * ((target or (std * above) ** 0.5) / std)
