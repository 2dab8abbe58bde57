"""Many recordings of one length coded in the same UNet calls: as ``ddcm compress`` does, only faster.

What comes out are whole ``.ddcm`` files. Each decodes alone, to latents that differ by rounding alone.
"""

import time
from collections.abc import Sequence, Sized
from dataclasses import dataclass

import torch

from ddcm.audio.layout import even_layout
from ddcm.audio.level import measure_level
from ddcm.audio.windows import window_mel
from ddcm.backbone import Backbone
from ddcm.codec.bitstream import BitWriter
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.compress import add_level, build_header
from ddcm.codec.format import pack
from ddcm.codec.rate_control import solve_schedule
from ddcm.codec.targets import compute_targets
from ddcm.codec.trajectory import encode_windows
from ddcm.errors import UserError

MOST = 64  # recordings in a call


@dataclass(frozen=True)
class Coded:
    """A recording's file, and what the decoder makes of it."""

    data: bytes
    z: torch.Tensor
    """(1, C, L, F)"""
    calls: int
    """UNet calls of its window"""
    seconds: float
    """its share of the time it took to code all of them"""


def in_lengths(audios: Sequence[Sized], most: int = MOST) -> list[list[int]]:
    """Numbers of the recordings, those of one length together, at most ``most`` at a time."""
    by_length: dict[int, list[int]] = {}
    for number, audio in enumerate(audios):
        by_length.setdefault(len(audio), []).append(number)
    return [numbers[at : at + most] for numbers in by_length.values() for at in range(0, len(numbers), most)]


@torch.no_grad()
def compress(audios: Sequence[torch.Tensor], backbone: Backbone, settings: CodecSettings) -> list[Coded]:
    """Recordings (S,) of one length, each of one window, in mode turbo or classic.

    Raises:
        UserError: longer ones, or a rate that cannot be met.
    """
    begin = time.perf_counter()
    if len(even_layout(len(audios[0]), backbone.mel_spec.hop).starts) > 1:
        raise UserError("recordings are coded together up to one window of 10.24 s")
    levels = [measure_level(audio) for audio in audios]
    header = solve_schedule(build_header(settings, backbone, len(audios[0])), settings)
    mels = [
        window_mel(audio, level, header.layout, 0, backbone.mel_spec)
        for audio, level in zip(audios, levels, strict=True)
    ]
    writers = [BitWriter() for _ in audios]
    decoded = encode_windows(
        header,
        backbone,
        compute_targets(backbone, mels, settings.mel_weight, settings.mel_share, settings.mel_interval),
        [0] * len(audios),
        writers,
    )
    seconds = (time.perf_counter() - begin) / len(audios)
    return [
        Coded(
            pack(add_level(header, level), writer.getvalue()),
            row,
            len(header.steps.timesteps),
            seconds,
        )
        for level, writer, row in zip(levels, writers, decoded.split(1), strict=True)
    ]
