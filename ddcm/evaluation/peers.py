"""Codecs to compare with: Opus and Codec2 by the program ffmpeg. ``neural_codecs`` has EnCodec and DAC."""

import functools
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddcm.errors import UserError, to_one_line
from ddcm.evaluation.signal_metrics import SAMPLE_RATE, log_mel_mae_db
from ddcm.runtime.progress import OnStep

SHIFT, SHIFTS = 160, 11  # samples at 16 kHz and their multiples, among which a codec's delay is searched


@dataclass(frozen=True)
class Decoded:
    """A recording after a codec."""

    audio: torch.Tensor
    """(S,) at 16 kHz, as long as the input"""
    size: int
    """bytes of the file, with its header"""
    encode_s: float
    decode_s: float


@dataclass(frozen=True)
class System:
    """A codec with its settings."""

    name: str
    """its family, a space and its nominal rate or level: what differs in the last number alone is one curve"""
    settings: dict[str, Any]
    """JSON-able: all that decides its results, digests of weights too"""
    code: Callable[[torch.Tensor, OnStep | None], Decoded]
    """audio (S,) at 16 kHz -> what is left of it"""


@dataclass(frozen=True)
class _Encoder:
    """An encoder of ffmpeg: https://ffmpeg.org/ffmpeg-codecs.html"""

    name: str
    suffix: str
    usual: tuple[float, ...]
    """kbps where none are asked for"""
    has: Callable[[float], bool]
    """whether there is such a rate in kbps"""
    flags: Callable[[float], tuple[object, ...]]


SMALLEST = ("-page_duration", 10_000_000, "-map_metadata", -1, "-fflags", "+bitexact")  # Ogg with no bytes to spare
CODEC2_KBPS = (1.2, 1.3, 1.4, 1.6, 2.4, 3.2)
ENCODERS = {
    "opus": _Encoder(
        "libopus", ".opus", (6.0, 12.0), lambda kbps: 6 <= kbps <= 256, lambda kbps: ("-b:a", f"{kbps:g}k", *SMALLEST)
    ),
    "codec2": _Encoder(
        "libcodec2", ".c2", (1.2, 2.4, 3.2), lambda kbps: kbps in CODEC2_KBPS,
        lambda kbps: ("-ar", 8000, "-mode", round(kbps * 1000)),
    ),
}  # fmt: skip
"""Opus (RFC 6716) and Codec2, which is for speech."""


def list_by_ffmpeg(codec: str, kbps: Sequence[float] | None = None) -> list[System]:
    """A codec of ``ENCODERS`` at its usual rates, or at those of ``kbps`` that it has. Raises UserError: no ffmpeg with
    its encoder."""
    encoder = ENCODERS[codec]
    if encoder.name not in find_encoders():
        raise UserError(f"{codec} needs the program ffmpeg with {encoder.name}")
    rates = encoder.usual if kbps is None else [rate for rate in kbps if encoder.has(rate)]
    return [System(f"{codec} {rate:g}", {"codec": codec, "kbps": rate}, partial(_code, codec, rate)) for rate in rates]


@functools.cache
def find_encoders() -> frozenset[str]:
    """Names of ffmpeg's encoders; none where it is not installed."""
    if not shutil.which("ffmpeg"):
        return frozenset()
    done = subprocess.run(["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True)
    return frozenset(line.split()[1] for line in done.stdout.splitlines() if len(line.split()) > 1)


def _code(codec: str, kbps: float, audio: torch.Tensor, on_step: OnStep | None = None) -> Decoded:
    encoder, raw = ENCODERS[codec], ("-f", "f32le", "-ar", SAMPLE_RATE, "-ac", 1)
    with tempfile.TemporaryDirectory(prefix="ddcm-") as folder:
        plain, packed, back = (Path(folder, name) for name in ("a.raw", f"a{encoder.suffix}", "b.raw"))
        audio.numpy().astype("<f4").tofile(plain)
        encode_s = _run_ffmpeg(codec, *raw, "-i", plain, "-c:a", encoder.name, *encoder.flags(kbps), packed)
        decode_s = _run_ffmpeg(codec, "-i", packed, *raw, back)
        decoded = torch.from_numpy(np.fromfile(back, "<f4").astype(np.float32))
        return Decoded(align(audio, decoded), packed.stat().st_size, encode_s, decode_s)


def _run_ffmpeg(codec: str, *words: object) -> float:
    """Seconds that it took."""
    begin = time.perf_counter()
    done = subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{codec} by ffmpeg: {to_one_line(done.stderr.strip()[-200:])}")
    return time.perf_counter() - begin


def align(audio: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """``decoded`` without the codec's delay, as long as ``audio``, both (S,) at 16 kHz: the best shift in steps of
    10 ms up to 100 ms."""
    shifts = (fit_length(decoded[SHIFT * number :], len(audio)) for number in range(SHIFTS))
    return min(shifts, key=lambda shifted: log_mel_mae_db(audio, shifted))


def fit_length(audio: torch.Tensor, samples: int) -> torch.Tensor:
    """Audio (S,) cut or filled with zeros to ``samples``."""
    return torch.nn.functional.pad(audio[:samples], (0, max(0, samples - len(audio))))


def count_bytes(codes: int, size: int) -> int:
    """Bytes of so many codes of a codebook of ``size`` atoms, packed without a header and without entropy coding."""
    return math.ceil(codes * math.log2(size) / 8)
