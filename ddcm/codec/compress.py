"""Audio -> the bytes of a ``.ddcm`` file: settings, header, schedule, payload, file."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from ddcm.audio.level import Level, measure_level
from ddcm.audio.recording import SpooledAudio
from ddcm.audio.windows import window_mel
from ddcm.codec import vq
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.coder import OnLatent, count_steps, decode_payload, encode_payload
from ddcm.codec.format import pack
from ddcm.codec.header import Header, ceil_log2
from ddcm.codec.model import LatentDiffusion, header_fields
from ddcm.codec.rate_control import solve_schedule
from ddcm.codec.targets import Targets, compute_targets
from ddcm.errors import UserError
from ddcm.quantize.pretrained import Codebook
from ddcm.runtime.progress import OnStep, Progress


def compress(
    audio: torch.Tensor | SpooledAudio, model: LatentDiffusion, settings: CodecSettings,
    codebook: Codebook | None = None, batch_size: int = 1, on_step: OnStep | None = None,
    on_latent: OnLatent | None = None,
) -> bytes:  # fmt: skip
    """Audio (S,), mono at the model's rate -> the bytes of a file. ``batch_size`` windows of 10.24 s are coded at a
    time; memory does not grow with the length. Raises UserError: a rate that cannot be met, no codebook for vq, or
    (``verify``) a decoder that differs."""
    level = audio.level if isinstance(audio, SpooledAudio) else measure_level(audio)
    header = add_level(build_header(settings, model, len(audio), codebook), level)
    if settings.mode != "vq":
        header = solve_schedule(header, settings)
    digests, layout = [], header.layout

    def read_targets(windows: Sequence[int]) -> Targets:
        mels = [window_mel(audio, level, layout, i, model.mel_spec) for i in windows]
        return compute_targets(model, mels, settings.mel_weight, settings.mel_share)

    def keep(z: torch.Tensor) -> None:
        digests.append(_digest(z))
        if on_latent is not None:
            on_latent(z)

    progress = Progress(on_step, count_steps(header, batch_size) * (1 + settings.verify))
    payload = encode_payload(header, model, codebook, read_targets, keep, batch_size, progress, settings.rate_weight)
    decoded = decode_payload(header, payload, model, codebook, batch_size, progress)
    if settings.verify and digests != [_digest(z) for z in decoded]:
        raise UserError("--verify: the decoder does not come to the encoder's latents on this machine")
    return pack(header, payload)


def build_header(
    settings: CodecSettings, model: LatentDiffusion, samples: int, codebook: Codebook | None = None
) -> Header:
    """A header without the level and the schedule. Raises UserError: vq without a codebook, or with more levels than
    the codebook has."""
    fields = header_fields(model)
    fields["samples"] = samples
    if settings.mode == "vq":
        if codebook is None:
            raise UserError("vq needs a fitted codebook: name one with --codebook")
        quantizer = codebook.quantizer
        levels = quantizer.num_quantizers if settings.levels is None else settings.levels
        if not 1 <= levels <= quantizer.num_quantizers:
            raise UserError(f"levels {levels} is outside [1, {quantizer.num_quantizers}], what the codebook has")
        fields |= dict(backbone=model.latent_digest, codebook=vq.digest(quantizer), atoms=quantizer.codebook_size)
        fields["code_model"] = vq.choose_revision(quantizer, model.latent_digest)
        return Header("vq", levels=levels, **fields)
    fields |= dict(seed=settings.seed, prompt=settings.prompt, guidance=round(256 * settings.guidance_scale))
    fields["cache_interval"] = settings.cache_interval
    bits = settings.coefficient_bits if settings.mode == "classic" else 0
    header = Header(settings.mode, book=settings.book, coefficient_bits=bits, **fields)
    atoms = header.latent_size if settings.book == "hadamard" else settings.noise_atoms
    return replace(header, log2_atoms=ceil_log2(atoms))


def add_level(header: Header, level: Level) -> Header:
    """The level in the file's precision. A mean beyond it becomes infinite, which ``pack`` refuses."""
    mean = float(torch.tensor(level.mean, dtype=torch.float16))
    return replace(header, mean=mean, gain=round(256 * math.log2(level.gain)))


def _digest(z: torch.Tensor) -> bytes:
    return hashlib.sha256(z.cpu().numpy().tobytes()).digest()
