"""Many recordings of one length coded in the same UNet calls: as ``ddcm compress`` does, only faster.

What comes out are whole ``.ddcm`` files. They say that their UNet calls are of so many windows, so each decodes alone,
bit for bit, though at that many times the cost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace

import torch

from ddcm.backbone import Backbone
from ddcm.codec.bitstream import BitWriter
from ddcm.codec.decode import sampler_for
from ddcm.codec.encode import scheduled, start, targets_of, with_level
from ddcm.codec.format import pack
from ddcm.codec.layout import layout
from ddcm.codec.schedule import expand
from ddcm.codec.settings import CodecSettings
from ddcm.codec.sound import measure_level, window_mel
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
    placed = layout(len(audios[0]), backbone.mel_spec.hop)
    if len(placed.starts) > 1:
        raise UserError("recordings are coded together up to one window of 10.24 s")
    levels = [measure_level(audio) for audio in audios]
    mels = [
        window_mel(a, mean, gain, placed, 0, backbone.mel_spec) for a, (mean, gain) in zip(audios, levels, strict=True)
    ]
    stream = scheduled(start(backbone, settings, len(audios[0]), None, len(audios)), placed, settings)
    outs = [BitWriter() for _ in audios]
    sampler = sampler_for(stream, backbone)
    decoded = encode_windows(stream, placed, sampler, *targets_of(backbone, mels), [0] * len(audios), outs)
    seconds = (time.perf_counter() - begin) / len(audios)
    return [
        Coded(
            pack(replace(with_level(stream, *level), payload=out.getvalue())),
            row,
            len(expand(stream.schedule).timesteps),
            seconds,
        )
        for level, out, row in zip(levels, outs, decoded.split(1), strict=True)
    ]
