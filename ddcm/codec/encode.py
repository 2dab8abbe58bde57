"""Audio -> the bytes of a ``.ddcm`` file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ddcm.audio.recording import SpooledAudio
from ddcm.backbone import Backbone
from ddcm.codec import vq
from ddcm.codec.bitstream import BitWriter
from ddcm.codec.decode import latents, said_in_file, sampler_for
from ddcm.codec.format import Stream, pack
from ddcm.codec.layout import BANDS, Layout, layout, padded_log2
from ddcm.codec.rate_control import planned
from ddcm.codec.schedule import expand
from ddcm.codec.settings import CodecSettings
from ddcm.codec.sound import measure_level, window_mel
from ddcm.codec.trajectory import encode_windows, same_arithmetic
from ddcm.errors import UserError
from ddcm.quantize.pretrained import Codebook

OnStep = Callable[[int, int], None]
Targets = tuple[torch.Tensor, torch.Tensor]
"""z (W, C, L, F) of windows, and weights of the same shape"""
OnLatent = Callable[[torch.Tensor], None]
"""Called with each window's z (1, C, L, F) as the decoder will have it."""


def encode(
    audio: torch.Tensor | SpooledAudio, backbone: Backbone, settings: CodecSettings,
    codebook: Codebook | None = None, lanes: int = 1, on_step: OnStep | None = None, on_latent: OnLatent | None = None,
) -> bytes:  # fmt: skip
    """Audio (S,), mono at the backbone's rate -> a file's bytes.

    Windows of 10.24 s are coded ``lanes`` at a time and forgotten, so that memory does not grow with the length.

    Raises:
        UserError: a rate that cannot be met, no codebook for vq, or (``verify``) a decoder that differs.
    """
    spec = backbone.mel_spec
    placed = layout(len(audio), spec.hop)
    mean, gain = measure_level(audio)
    stream = start(backbone, settings, len(audio), codebook, min(lanes, len(placed.starts)))
    stream = with_level(stream, mean, gain)
    if settings.mode != "vq":
        stream = scheduled(stream, placed, settings)
    seen = hashlib.sha256()

    def keep(z: torch.Tensor) -> None:
        seen.update(z.cpu().numpy().tobytes())
        if on_latent is not None:
            on_latent(z)

    def targets(windows: range) -> Targets:
        return targets_of(backbone, [window_mel(audio, mean, gain, placed, window, spec) for window in windows])

    code = _code_vq if settings.mode == "vq" else _code
    stream = replace(stream, payload=code(stream, placed, backbone, codebook, targets, keep, on_step))
    if settings.verify:
        again = hashlib.sha256()
        for z in latents(stream, placed, backbone, codebook):
            again.update(z.cpu().numpy().tobytes())
        if again.digest() != seen.digest():
            raise UserError("--verify: the decoder does not come to the encoder's latents on this machine")
    return pack(stream)


def start(backbone: Backbone, settings: CodecSettings, samples: int, codebook: Codebook | None, lanes: int) -> Stream:
    """A stream's header, all but the level and the schedule."""
    common = said_in_file(backbone) | dict(samples=samples, lanes=lanes, threads=min(torch.get_num_threads(), 64))
    if settings.mode == "vq":
        if codebook is None:
            raise UserError("vq needs a fitted codebook: name one with --codebook")
        quantizer = codebook.quantizer
        most, atoms = quantizer.num_quantizers, quantizer.codebook_size
        levels = most if settings.levels is None else settings.levels
        if not 1 <= levels <= most:
            raise UserError(f"levels {levels} is outside [1, {most}], what the codebook has")
        common |= dict(codebook=vq.digest(quantizer), atoms=atoms, levels=levels, backbone=backbone.latent_digest)
        return Stream("vq", **common)
    placed = layout(samples, backbone.mel_spec.hop)
    hadamard = settings.book == "hadamard"
    return Stream(
        settings.mode, **common, seed=settings.seed, prompt=settings.prompt, guidance=round(256 *
        settings.guidance_scale), book=settings.book, coefficient_bits=settings.coefficient_bits if settings.mode ==
        "classic" else 0, log2_atoms=padded_log2(placed.numbers) if hadamard else padded_log2(settings.noise_atoms),
    )  # fmt: skip


def scheduled(stream: Stream, placed: Layout, settings: CodecSettings) -> Stream:
    if settings.schedule is not None:
        return replace(stream, schedule=settings.schedule)
    return planned(stream, placed, settings.rate_kbps, settings.steps, settings.schedules)


def targets_of(backbone: Backbone, mels: Sequence[torch.Tensor]) -> Targets:
    """What windows of mel (1, 1, T, M) should become, and how much each number of it is worth.

    The posterior's deviation says how much a number may be off before the decoder makes another mel of it; in some
    channels that is several times less than in others. Choosing noise for the residual over the root of it costs no
    bits and brings the mel nearer. Over the deviation itself, what is left alone drifts too far.
    """
    found = [backbone.posterior(mel) for mel in mels]
    z = torch.cat([mean for mean, _ in found]) * backbone.scaling_factor
    return z, torch.cat([deviation for _, deviation in found]).clamp(min=1e-6).rsqrt()


def _code(stream, placed, backbone, codebook, targets, keep, on_step) -> bytes:
    out, sampler = BitWriter(), sampler_for(stream, backbone)
    groups = list(in_groups(len(placed.starts), stream.lanes))
    calls, in_all = 0, len(groups) * len(expand(stream.schedule).timesteps)

    def on_call() -> None:
        nonlocal calls
        calls += 1
        if on_step is not None:
            on_step(calls, in_all)

    for windows in groups:
        wanted, weights = targets(windows)
        outs = [out] * len(windows)
        z = encode_windows(stream, placed, sampler, wanted, weights, windows, outs, on_call)
        for row in z.split(1):
            keep(row)
    return out.getvalue()


def _code_vq(stream, placed, backbone, codebook, targets, keep, on_step) -> bytes:
    quantizer, out = codebook.quantizer, vq.Encoder(codebook.quantizer, stream.levels, BANDS)
    with same_arithmetic(stream.threads):
        for window in range(len(placed.starts)):
            z, _ = targets(range(window, window + 1))
            kept = vq.to_levels(quantizer.encode(z), z.shape)[: stream.levels]
            out.write(kept)
            keep(quantizer.decode(vq.from_levels(kept, quantizer, z.shape)))
            if on_step is not None:
                on_step(window + 1, len(placed.starts))
    return out.getvalue()


def with_level(stream: Stream, mean: float, gain: float) -> Stream:
    """The level as the file keeps it; a mean that it cannot hold becomes infinite, which the container refuses."""
    return replace(stream, mean=float(torch.tensor(mean, dtype=torch.float16)), gain=round(256 * math.log2(gain)))


def in_groups(windows: int, lanes: int):
    return (range(first, min(first + lanes, windows)) for first in range(0, windows, lanes))
