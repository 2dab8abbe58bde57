"""Audio -> the bytes of a ``.ddcm`` file: settings, header, schedule, payload, file."""

import hashlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import cast

import torch

from ddcm.audio.level import Level, measure_level
from ddcm.audio.mel import mel_error_db
from ddcm.audio.recording import SpooledAudio
from ddcm.audio.windows import window_mel
from ddcm.codec import hybrid, quality
from ddcm.codec.allocation import choose_shares
from ddcm.codec.codec_settings import WITH_CODEBOOK, CodecSettings
from ddcm.codec.coder import OnLatent, count_steps, decode_payload, encode_payload, split_windows
from ddcm.codec.codes import vq
from ddcm.codec.format import pack
from ddcm.codec.header import Header, ceil_log2, shorten
from ddcm.codec.model import LatentDiffusion, header_fields
from ddcm.codec.rate_control import check_rate, meets_rate, solve_schedule
from ddcm.codec.targets import Targets, compute_targets
from ddcm.errors import UserError
from ddcm.quantize.pretrained import Codebook
from ddcm.runtime.progress import OnStep, Progress

Audio = torch.Tensor | SpooledAudio
OnWindow = Callable[[torch.Tensor, torch.Tensor], None]
ATTEMPTS = 3  # codings of a hybrid file, until it has its rate


def compress(
    audio: Audio, model: LatentDiffusion, settings: CodecSettings,
    codebook: Codebook | None = None, batch_size: int = 1, on_step: OnStep | None = None,
    on_latent: OnLatent | None = None,
) -> bytes:  # fmt: skip
    """Audio (S,), mono at the model's rate -> the bytes of a file. ``batch_size`` windows of 10.24 s are coded at a
    time; memory does not grow with the length. What the codes of mode hybrid take is known once they are written: where
    the file misses its rate, its trajectories are coded again for what the codes leave. Raises UserError: a rate or an
    error that cannot be met, no codebook for vq or hybrid, or (``verify``) a decoder that differs."""
    level = audio.level if isinstance(audio, SpooledAudio) else measure_level(audio)
    if settings.db is not None:
        settings = _settle_rate(audio, level, model, settings, codebook, batch_size, on_step)
        on_step = _shift(on_step, quality.TRIALS)
    digests: list[bytes] = []
    latents: list[torch.Tensor] = []

    def keep(z: torch.Tensor, mel: torch.Tensor) -> None:
        digests.append(_digest(z))
        if on_latent is not None:
            (latents.append if is_repeated else on_latent)(z)

    header, progress = _complete_header(audio, level, model, settings, codebook, batch_size, on_step)
    is_repeated, code_bytes = header.mode == "hybrid" and settings.schedule is None, None
    for _ in range(ATTEMPTS):
        digests.clear()
        latents.clear()
        if code_bytes is not None:
            header = solve_schedule(header, settings, code_bytes)
        header, payload = _encode(audio, level, header, model, settings, codebook, batch_size, progress, keep)
        data = pack(header, payload)
        if not is_repeated or meets_rate(header, settings, len(data)):
            break
        code_bytes = len(payload) - header.trajectory_bytes
    else:
        check_rate(header, settings, len(data))
    decoded = decode_payload(header, payload, model, codebook, batch_size, progress)
    if settings.verify and digests != [_digest(z) for z in decoded]:
        raise UserError("--verify: the decoder does not come to the encoder's latents on this machine")
    if on_latent is not None:
        for z in latents:
            on_latent(z)
    return data


def _complete_header(
    audio: Audio, level: Level, model: LatentDiffusion, settings: CodecSettings, codebook: Codebook | None,
    batch_size: int, on_step: OnStep | None,
) -> tuple[Header, Progress]:  # fmt: skip
    """The header with schedule and shares, and the progress of all that follows."""
    header = add_level(build_header(settings, model, len(audio), codebook), level)
    if settings.mode != "vq":
        header = solve_schedule(header, settings, hybrid.estimate_code_bytes(header))
    batches, steps = split_windows(header, batch_size), count_steps(header, batch_size) * (1 + settings.verify)
    if not settings.allocate or header.mode != "turbo" or settings.schedule or len(header.layout.starts) == 1:
        return header, Progress(on_step, steps)
    progress = Progress(on_step, steps + len(batches))

    def read_targets(windows: Sequence[int]) -> Targets:
        return compute_targets(model, _read_mels(audio, level, header, model, windows))

    shares = choose_shares(header, model, read_targets, batches, progress)
    return solve_schedule(replace(header, shares=shares), settings), progress


def _encode(
    audio: Audio, level: Level, header: Header, model: LatentDiffusion, settings: CodecSettings,
    codebook: Codebook | None, batch_size: int, progress: Progress, on_window: OnWindow,
) -> tuple[Header, bytes]:  # fmt: skip
    """The payload, and the header with what the encoder chose. ``on_window(z, mel)`` gets each window as it will be
    decoded, and the mel that it was coded from."""
    mels: deque[torch.Tensor] = deque()

    def read_targets(windows: Sequence[int]) -> Targets:
        own = _read_mels(audio, level, header, model, windows)
        mels.extend(own)
        return compute_targets(model, own, settings.mel_weight, settings.mel_share, settings.mel_interval)

    def keep(z: torch.Tensor) -> None:
        on_window(z, mels.popleft())

    return encode_payload(header, model, codebook, read_targets, keep, batch_size, progress, settings.rate_weight)


def _read_mels(
    audio: Audio, level: Level, header: Header, model: LatentDiffusion, windows: Sequence[int]
) -> list[torch.Tensor]:
    return [window_mel(audio, level, header.layout, window, model.mel_spec) for window in windows]


def _settle_rate(
    audio: Audio, level: Level, model: LatentDiffusion, settings: CodecSettings, codebook: Codebook | None,
    batch_size: int, on_step: OnStep | None,
) -> CodecSettings:  # fmt: skip
    """The settings with a rate in place of an error."""
    excerpt, trials = quality.cut_excerpt(audio, model.mel_spec.hop), count()

    def measure(kbps: float) -> float:
        errors: list[float] = []

        def compare(z: torch.Tensor, mel: torch.Tensor) -> None:
            errors.append(mel_error_db(model.decode(z).cpu(), mel))

        own = replace(settings, db=None, kbps=kbps, verify=False)
        report = _shift(on_step, next(trials))
        header, progress = _complete_header(excerpt, level, model, own, codebook, batch_size, report)
        _encode(excerpt, level, header, model, own, codebook, batch_size, progress, compare)
        return sum(errors) / len(errors)

    return replace(settings, db=None, kbps=quality.find_kbps(measure, cast(float, settings.db)))


def _shift(on_step: OnStep | None, trials: int) -> OnStep | None:
    """Reports steps as those behind so many trials, of all that there can be and the coding at last."""

    def shifted(done: int, total: int) -> None:
        assert on_step is not None
        on_step(trials * total + done, (quality.TRIALS + 1) * total)

    return on_step and shifted


def build_header(
    settings: CodecSettings, model: LatentDiffusion, samples: int, codebook: Codebook | None = None
) -> Header:
    """A header without the level and the schedule. Raises UserError: vq without a codebook, or with more levels than
    the codebook has."""
    fields = header_fields(model)
    fields["samples"] = samples
    mode = settings.mode
    if mode in WITH_CODEBOOK:
        if codebook is None:
            raise UserError(f"{mode} needs a fitted codebook: name one with --codebook")
        levels = hybrid.count_levels(settings, codebook)
        quantizer = codebook.quantizer
        if levels:
            fields |= dict(codebook=shorten(vq.digest(quantizer)), atoms=quantizer.codebook_size, levels=levels)
            fields["code_model"] = vq.choose_revision(quantizer, model.latent_digest if mode == "vq" else None)
        else:
            mode = "turbo"
    if mode == "vq":
        return Header("vq", **fields | dict(backbone=shorten(model.latent_digest)))
    fields |= dict(seed=settings.seed, prompt=settings.prompt, guidance=round(256 * settings.guidance_scale))
    fields["cache_interval"] = settings.cache_interval
    bits = settings.coefficient_bits if mode == "classic" else 0
    header = Header(mode, book=settings.book, coefficient_bits=bits, **fields)
    atoms = header.latent_size if settings.book == "hadamard" else settings.noise_atoms
    bases = settings.bases if mode != "classic" and settings.book == "hadamard" else 1
    return replace(header, log2_atoms=ceil_log2(atoms), bases=bases)


def add_level(header: Header, level: Level) -> Header:
    """The level in the file's precision. A mean beyond it becomes infinite, which ``pack`` refuses."""
    mean = float(torch.tensor(level.mean, dtype=torch.float16))
    return replace(header, mean=mean, gain=round(256 * math.log2(level.gain)))


def _digest(z: torch.Tensor) -> bytes:
    return hashlib.sha256(z.cpu().numpy().tobytes()).digest()
