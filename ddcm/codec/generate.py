"""Compressed generation: a prompt -> a ``.ddcm`` file that decodes without it (arXiv 2502.01189, section 5).

Compressed classifier-free guidance: the trajectory is the unconditional one, and the prompt acts through the choice
of noise alone. Each step draws a random part of its codebook. Of that part it takes the atoms that point most from the
estimate without the prompt to the estimate with it. So the decoder needs neither the prompt nor a text encoder. There
is no guidance scale: the larger the part, the stronger the guidance, and the fewer the results that a prompt can have.
"""

from dataclasses import replace

import torch

from ddcm.audio.layout import FRAMES
from ddcm.codec import selection
from ddcm.codec.bitstream import BitWriter
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.compress import build_header
from ddcm.codec.format import pack
from ddcm.codec.model import LatentDiffusion
from ddcm.codec.noise_codebooks import START, noise_codebook
from ddcm.codec.philox import random_words
from ddcm.codec.rate_control import solve_schedule
from ddcm.codec.trajectory import denoise_windows
from ddcm.errors import UserError
from ddcm.runtime.progress import OnStep, Progress

LONGEST_S = 10.24  # one window: windows that are generated apart would not fit together


def generate(
    model: LatentDiffusion, prompt: str, duration_s: float, settings: CodecSettings, seed: int, share: float = 0.125,
    on_step: OnStep | None = None,
) -> bytes:  # fmt: skip
    """The bytes of a file; decoding them gives the audio. The rate, steps and noise codebook are those of ``settings``;
    its atoms are of one basis.

    Args:
        duration_s: in (0, 10.24].
        seed: of the drawn parts of the codebooks: another seed gives another result. The file decodes without it.
        share: of a codebook that a step draws, in (0, 1]; at least as many atoms as the step takes.

    Raises UserError: no prompt, another mode than turbo, or a length or share out of range.
    """
    if not prompt:
        raise UserError("compressed generation needs a prompt")
    if settings.mode != "turbo":
        raise UserError(f"compressed generation is for mode turbo, not {settings.mode}")
    spec = model.mel_spec
    longest = min(LONGEST_S, FRAMES * spec.hop / spec.sample_rate)
    if not 0 < duration_s <= longest:
        raise UserError(f"duration_s {duration_s} is outside (0, {longest:g}]; compressed generation is of one window")
    if not 0 < share <= 1:
        raise UserError(f"share {share} is outside (0, 1]; the nearest valid one is {1 if share > 1 else 0.01:g}")
    samples = max(1, round(duration_s * spec.sample_rate))
    header = solve_schedule(build_header(replace(settings, prompt="", bases=1), model, samples), settings)
    codebook, writer, choices = noise_codebook(header), BitWriter(), []
    without, with_prompt = (model.denoiser(text, "", 1.0, header.cache_interval) for text in ("", prompt))
    counts = header.atoms_of(0)
    direction = torch.empty(0)  # of the present step

    def denoise(x: torch.Tensor, t: int) -> torch.Tensor:
        nonlocal direction
        x0 = without(x, t)
        direction = (with_prompt(x, t) - x0)[0].flatten()
        return x0

    def pick(step: int, x0: torch.Tensor) -> list[torch.Tensor]:
        count = counts[step]
        lots = torch.from_numpy(random_words(codebook.atoms, ([0], step, START), seed)[0].astype("int64"))
        drawn = lots.topk(max(count, round(share * codebook.atoms))).indices
        correlations = codebook.correlate(0, step, direction)[0]
        drawn = drawn.to(correlations.device, non_blocking=True)
        masked = torch.zeros_like(correlations)
        masked[drawn] = correlations[drawn]
        choices.append(selection.choose_largest(masked[None], count))
        return [codebook.synthesize(0, step, *choices[-1])]

    denoise_windows(header, model, denoise, [0], pick, Progress(on_step, len(header.steps.timesteps)).step)
    for choice in choices:
        selection.write(writer, choice, header)
    return pack(header, writer.getvalue())
