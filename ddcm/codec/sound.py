"""Audio -> windows of z, and windows of z -> audio, a window at a time: memory does not grow with the length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from ddcm.audio.files import PEAK, SILENCE
from ddcm.audio.mel import MelSpec, log_mel
from ddcm.audio.recording import SpooledAudio
from ddcm.audio.refine import refine
from ddcm.audio.windows import split_with_context
from ddcm.backbone import Backbone
from ddcm.codec.format import Stream
from ddcm.codec.layout import Layout
from ddcm.codec.trajectory import same_arithmetic

CONTEXT = 3  # mel frames on each side that a frame's spectrum reaches into


def measure_level(audio: torch.Tensor | SpooledAudio) -> tuple[float, float]:
    """(mean, gain) of audio (S,), as ``ddcm.audio.files.level`` has them, without a second copy of a long recording."""
    if isinstance(audio, SpooledAudio):
        return audio.level.mean, audio.level.gain
    mean = float(sum(piece.double().sum() for piece in audio.split(1 << 20))) / len(audio)
    peak = max(float(audio.max()) - mean, mean - float(audio.min()))
    return mean, PEAK / peak if peak > SILENCE else 1.0


def window_mel(
    audio: torch.Tensor | SpooledAudio, mean: float, gain: float, placed: Layout, number: int, spec: MelSpec
) -> torch.Tensor:
    """mel (1, 1, size, M) of one window of audio (S,): exactly what the spectrogram of the whole recording has there.

    The recording is continued with silence to the layout's length: a zero in the log-mel would be louder than most
    music.
    """
    first = placed.starts[number]
    left, right = max(0, first - CONTEXT), min(placed.total, first + placed.size + CONTEXT)
    piece = (audio[left * spec.hop : right * spec.hop] - mean) * gain
    piece = torch.nn.functional.pad(piece, (0, (right - left) * spec.hop - len(piece)))
    return log_mel(piece[None], spec)[:, :, first - left : first - left + placed.size]


def mels(backbone: Backbone, latents: Iterable[torch.Tensor], placed: Layout, threads: int) -> Iterator[torch.Tensor]:
    """Windows of z, each (1, C, L, F), in order -> pieces of mel (1, 1, T, M) that follow on each other.

    Neighbours are cross-faded linearly over what they share. One window at a time is decoded, always: a batch would
    round otherwise.
    """
    held: torch.Tensor | None = None  # the end of the window before, which the next one overlaps
    for number, z in enumerate(latents):
        with same_arithmetic(threads):
            mel = backbone.decode(z).cpu()
        first, last = placed.starts[number], number + 1 == len(placed.starts)
        stop = first + placed.size if last else placed.starts[number + 1]
        if held is not None:
            shared = held.shape[2]
            fade = (torch.arange(shared, dtype=torch.float32) + 1)[:, None] / (shared + 1)
            mel[:, :, :shared] = mel[:, :, :shared] * fade + held * (1 - fade)
        yield mel[:, :, : stop - first]
        held = mel[:, :, stop - first :]


def audio_pieces(
    backbone: Backbone, pieces: Iterable[torch.Tensor], stream: Stream, vocoder: str = "refined"
) -> Iterator[torch.Tensor]:
    """Pieces of mel -> pieces of audio (S,), ``stream.samples`` in all, at the recording's level.

    Vocoded in pieces with context, which is exact for a convolutional vocoder.
    """
    left, gain = stream.samples, 2 ** (stream.gain / 256)
    for mel, meant in split_with_context(pieces, backbone.mel_spec.hop):
        with same_arithmetic(stream.threads):
            audio = backbone.vocode(mel)[0].cpu()
            if vocoder == "refined":
                audio = refine(audio, mel, backbone.mel_spec)
        audio = audio[meant][:left]
        left -= len(audio)
        if len(audio):
            yield audio / gain + stream.mean
