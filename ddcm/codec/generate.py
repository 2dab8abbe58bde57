"""Compressed generation: audio from text whose ``.ddcm`` file comes for free (DDCM, arXiv 2502.01189, section 5).

Compressed classifier-free guidance: the trajectory is the unconditional one, and the prompt acts through the choice
of noise alone. Of each step's codebook a random part is drawn, and of that the atoms are taken that point most from
what the denoiser sees without the prompt to what it sees with it. So the decoder needs neither the prompt nor a text
encoder. There is no guidance scale: the larger the part that is chosen from, the stronger the guidance, and the fewer
the ways that a prompt can go.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ddcm.backbone import Backbone
from ddcm.codec import turbo
from ddcm.codec.bitstream import BitWriter
from ddcm.codec.encode import scheduled, start
from ddcm.codec.format import pack
from ddcm.codec.layout import FRAMES, layout
from ddcm.codec.noise_codebooks import START
from ddcm.codec.philox import words
from ddcm.codec.settings import CodecSettings
from ddcm.codec.trajectory import OnCall, Sampler, book_of, run, write_choice
from ddcm.errors import UserError

LONGEST_S = 10.24  # one window: windows that are generated apart would not go together


def generate(
    backbone: Backbone, prompt: str, duration_s: float, settings: CodecSettings, seed: int, share: float = 0.125,
    on_call: OnCall | None = None,
) -> bytes:  # fmt: skip
    """A file's bytes; decoding them gives the audio.

    Args:
        duration_s: in (0, 10.24].
        settings: rate, steps and codebook, as for a recording. The file decodes without ``seed``.
        seed: of the parts of the codebooks that are chosen from: what makes one generation differ from another.
        share: of a codebook that a step chooses from, in (0, 1]; at least as many atoms as the step takes.

    Raises:
        UserError: no prompt, another mode than turbo, or a length or share out of range.
    """
    if not prompt:
        raise UserError("compressed generation needs a prompt")
    if settings.mode != "turbo":
        raise UserError(f"compressed generation is for mode turbo, not {settings.mode}")
    spec = backbone.mel_spec
    longest = min(LONGEST_S, FRAMES * spec.hop / spec.sample_rate)
    if not 0 < duration_s <= longest:
        raise UserError(f"duration_s {duration_s} is outside (0, {longest:g}]; compressed generation is of one window")
    if not 0 < share <= 1:
        raise UserError(f"share {share} is outside (0, 1]; the nearest valid one is {1 if share > 1 else 0.01:g}")
    samples = max(1, round(duration_s * spec.sample_rate))
    placed = layout(samples, spec.hop)
    stream = start(backbone, replace(settings, prompt=""), samples, None, 1)
    stream = scheduled(stream, placed, settings)
    book, out = book_of(stream, placed), BitWriter()
    null, wanted = backbone.null_condition(), backbone.condition(prompt)
    direction = torch.empty(0)  # of the step that is being taken

    def denoise(x: torch.Tensor, t: int) -> torch.Tensor:
        nonlocal direction
        plain = backbone.eps(x, t, null)
        # x0 with the prompt minus x0 without is this, up to a positive factor.
        direction = (plain - backbone.eps(x, t, wanted))[0].flatten().cpu()
        return backbone.x0_from_eps(x, t, plain)

    def pick(step: int, x0: torch.Tensor, count: int) -> list[torch.Tensor]:
        ticket = torch.from_numpy(words(book.atoms, ([0], step, START), seed)[0].astype("int64"))
        part = ticket.topk(max(count, round(share * book.atoms))).indices
        correlations = torch.full((book.atoms,), 0.0)
        correlations[part] = book.correlate(0, step, direction)[part]
        choice = turbo.of_correlations(correlations, count)
        write_choice(out, stream, choice)
        return [book.synthesize(0, step, *choice)]

    run(stream, placed, Sampler(denoise, backbone.alphas_cumprod, backbone.device, backbone.check), [0], pick, on_call)
    return pack(replace(stream, payload=out.getvalue()))
