"""Training clips of one length, and what they lose when they are coded together by any schedule."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ddcm.audio.files import read_audio
from ddcm.audio.level import normalise_level
from ddcm.audio.mel import LN_TO_DB, log_mel
from ddcm.backbone import Backbone
from ddcm.codec.bitstream import BitWriter
from ddcm.codec.codec_settings import Book, CodecSettings
from ddcm.codec.compress import build_header
from ddcm.codec.header import Header
from ddcm.codec.rate_control import find_nearest
from ddcm.codec.step_schedule import ParametricSchedule
from ddcm.codec.targets import Targets, compute_targets, make_residual
from ddcm.codec.trajectory import MakeResidual, encode_windows


def cut_clips(paths: Iterable[Path], seconds: float, count: int, rate: int) -> list[torch.Tensor]:
    """The first ``count`` recordings that are long enough, cut from their middle, at AudioLDM2's level."""
    size, clips = round(seconds * rate / 640) * 640, []
    for path in paths:
        audio = read_audio(path, rate)
        if len(audio) >= size and len(clips) < count:
            begin = (len(audio) - size) // 2
            clips.append(normalise_level(audio[begin : begin + size])[0])
    return clips


def read_training_clips(
    folder: Path, seconds: float, count: int, kinds: Sequence[str] | None = None
) -> list[torch.Tensor]:
    """Training clips of the pool, kinds in turn, spread over each kind; never a validation clip."""
    from pocket.corpus import KINDS, Corpus

    corpus, size, clips, kinds = Corpus(folder), round(seconds * 25) * 640, [], kinds or KINDS
    each = -(-count // len(kinds))
    for kind in kinds:
        long = [clip for clip in corpus.of("train", kind) if clip.length >= size]
        for clip in long[:: max(1, len(long) // each)][:each]:
            audio = torch.from_numpy(corpus.audio(clip, (clip.length - size) // 2, size))
            clips.append(normalise_level(audio)[0])
    return clips[:count]


@dataclass(frozen=True)
class Trial:
    """Clips of one length, coded together by any schedule. ``replace`` makes another of the same clips."""

    backbone: Backbone
    header: Header
    mels: torch.Tensor
    """(clips, 1, T, M), of the recordings"""
    targets: Targets
    """what the noise is chosen for"""
    z: torch.Tensor
    """(clips, C, L, F), the latents whose decoded mels are the ceiling"""
    make: MakeResidual = make_residual

    @property
    def seconds(self) -> float:
        return self.header.seconds

    @functools.cached_property
    def ceiling(self) -> float:
        """dB between the mels of the latents and those of the recordings"""
        return float(self._errors(self.z).mean())

    def _errors(self, z: torch.Tensor) -> torch.Tensor:
        mels = torch.cat([self.backbone.decode(row).cpu() for row in z.split(1)])
        return (mels - self.mels).abs().mean(dim=(1, 2, 3)) * LN_TO_DB

    def loss(self, shape: ParametricSchedule, kbps: float) -> float:
        """dB that the mels of the clips, coded with as many atoms as the rate pays for, lose to those of z."""
        return float(self.errors_of_clips(shape, kbps).mean()) - self.ceiling

    def errors_of_clips(self, shape: ParametricSchedule, kbps: float) -> torch.Tensor:
        """dB (clips,) between the mels of the coded clips and those of the recordings."""
        return self._errors(self.code(shape, kbps))

    def code(self, shape: ParametricSchedule, kbps: float) -> torch.Tensor:
        """Latents (clips, C, L, F) as a decoder gets them."""

        def with_total(total: int) -> Header:
            return replace(self.header, schedule=replace(shape, total=total))

        total = find_nearest(lambda total: with_total(total).bits_of(0), kbps * 1000 * self.seconds, 1, 40_000)
        windows, writers = range(len(self.z)), [BitWriter() for _ in self.z]
        return encode_windows(with_total(total), self.backbone, self.targets, windows, writers, make=self.make)


def make_trial(
    backbone: Backbone, clips: list[torch.Tensor], book: Book = "hadamard", cache_interval: int = 1
) -> Trial:
    """Of clips (S,) of one length."""
    settings = CodecSettings(book=book, cache_interval=cache_interval)
    mels = [log_mel(clip[None], backbone.mel_spec) for clip in clips]
    targets = compute_targets(backbone, mels, settings.mel_weight, settings.mel_share, settings.mel_interval)
    return Trial(backbone, build_header(settings, backbone, len(clips[0])), torch.cat(mels), targets, targets.z)
