"""The diffusion stage of a verb: noised latents, or noise alone -> clean latents, with the codebook's part in it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from ddcm.audio.layout import fixed_layout
from ddcm.diffusion.loop import Project, denoise_loop, identity
from ddcm.diffusion.timesteps import add_noise, from_strength
from ddcm.pipeline.quantise import add_usage, count_codes, quantise
from ddcm.pipeline.stages import Conditioning, Estimates, Latents, Setup
from ddcm.quantize import Quantizer
from ddcm.recipes import Recipe
from ddcm.runtime.progress import Progress

TRACED = 8  # estimates in a trace
OnEstimate = Callable[[int, int, torch.Tensor], None]  # step, timestep, x0 (W, C, L, F) of windows


def denoise(
    setup: Setup, start: Latents, conditioning: Conditioning, seeds: Sequence[int], together: bool,
    progress: Progress, trace: bool = False, on_estimate: OnEstimate | None = None,
) -> Iterator[Latents]:  # fmt: skip
    """A result for each seed, from the latents ``start`` noised to the recipe's strength, or from noise alone.
    ``together``: the windows of all seeds share batches, which uses a GPU better. One seed after the other, a result
    has the same bits as its seed has alone. With ``trace``, results carry estimates."""
    recipe, reference = setup.recipe, start.reference
    timesteps = list_timesteps(recipe, from_noise=start.z is None)
    for group in _group_seeds(seeds, together):
        noise = torch.cat([setup.draw_noise(seed, reference.frames) for seed in group])
        # Not repeated for one seed: a copy has another memory layout, with which the UNet rounds otherwise.
        z = start.z if start.z is None or len(group) == 1 else start.z.repeat(len(group), 1, 1, 1)
        results, estimates = sample(setup, conditioning, timesteps, noise, z, progress, trace, on_estimate)
        for seed, result in zip(group, results.chunk(len(group)), strict=True):
            info = replace(
                start.info, prompt=conditioning.prompt, negative_prompt=conditioning.negative_prompt, seed=seed,
                unet_steps=len(timesteps),
            )  # fmt: skip
            if setup.quantizer is not None and recipe.quantizer == "hard" and recipe.acts_on != "input":
                info = add_usage(info, count_codes(result, setup.quantizer))
            yield Latents(result, reference, info, estimates)


def count_denoise_steps(setup: Setup, frames: int, seeds: Sequence[int], together: bool, from_noise: bool) -> int:
    """UNet calls of ``denoise``; two under guidance count as one."""
    windows = len(fixed_layout(frames).starts)
    batches = sum(-(-len(group) * windows // setup.batch_size) for group in _group_seeds(seeds, together))
    return batches * len(list_timesteps(setup.recipe, from_noise))


def _group_seeds(seeds: Sequence[int], together: bool) -> list[list[int]]:
    return [list(seeds)] if together else [[seed] for seed in seeds]


def list_timesteps(recipe: Recipe, from_noise: bool = False) -> tuple[int, ...]:
    """Timesteps from the recipe's strength down, or all of them from noise alone."""
    return from_strength(1.0 if from_noise else recipe.strength, recipe.steps)


def sample(
    setup: Setup, conditioning: Conditioning, timesteps: Sequence[int], noise: torch.Tensor,
    z: torch.Tensor | None, progress: Progress, trace: bool = False, on_estimate: OnEstimate | None = None,
) -> tuple[torch.Tensor, Estimates]:  # fmt: skip
    """Clean latents of windows (W, C, L, F), and up to ``TRACED`` estimates of the first one with ``trace``. z is
    noised to the first of the falling timesteps; without any it stays as it is. Without z the start is the noise."""
    backbone, recipe, quantizer = setup.backbone, setup.recipe, setup.quantizer
    estimates: list[tuple[int, torch.Tensor]] = []
    if timesteps:
        x = noise if z is None else add_noise(z, noise, float(backbone.alphas_cumprod[timesteps[0]]))
        prompts = conditioning.prompt, conditioning.negative_prompt
        predict = backbone.denoiser(*prompts, recipe.guidance_scale, recipe.cache_interval)
        project = make_projection(recipe, quantizer, len(timesteps))
        kept = {round(i * (len(timesteps) - 1) / (TRACED - 1)) for i in range(TRACED)} if trace else set()
        results: list[torch.Tensor] = []

        def step(i: int, x0: torch.Tensor) -> None:
            if i in kept and not results:
                estimates.append((timesteps[i], x0[:1].cpu()))
            if on_estimate is not None:
                on_estimate(i, timesteps[i], x0)
            progress.step()

        for batch in x.split(setup.batch_size):
            results.append(
                denoise_loop(predict, batch, timesteps, backbone.alphas_cumprod,
                             project=project, solver=recipe.solver, on_step=step)
            )  # fmt: skip
        backbone.check()
        z = torch.cat(results)
    assert z is not None, "from noise there is at least one step"
    if quantizer is not None and recipe.acts_on == "output":
        z = torch.cat([quantise(batch, recipe, quantizer) for batch in z.split(setup.batch_size)])
    return z, estimates


def make_projection(recipe: Recipe, quantizer: Quantizer | None, steps: int) -> Project:
    """What the codebook does to the x0 estimates of a loop of ``steps``."""
    if quantizer is None or recipe.acts_on not in ("estimates", "late-estimates"):
        return identity
    first = steps // 2 if recipe.acts_on == "late-estimates" else 0
    return lambda i, x0: quantise(x0, recipe, quantizer) if i >= first else x0
