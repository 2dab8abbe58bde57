"""The samples of a file, by libsndfile or ffmpeg, to the end of what is there; and its duration by the same rules."""

import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import soundfile

from ddcm.audio import ffmpeg
from ddcm.audio.joined import MOST, REACH, Part, PartReader, refuse_several, split, split_chunks, split_mp3
from ddcm.errors import UserError

BLOCK = 1 << 20  # numbers read at a time
UNKNOWN = 1 << 35  # frames: from here on a header does not know
NUMBER = r"(0x[0-9A-Fa-f]+|[1-9]\d*|0)"
DECLARED = re.compile(
    rf"^\s*(?:data|SSND|Data Size|BODY|[Rr]iff(?: size)?)\s*:\s*{NUMBER} *\(should be +{NUMBER}\)", re.M
)
WHOLE = re.compile(r"^(?:RIFF|FORM) : \d+$", re.M)  # in libsndfile's log: the outer length fits the file
LIMITS = (0x7F000000, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)  # bytes that stand for an unknown length
HEADERS = (-8, 0, 8, 36, 44, 60, 68, 80)  # bytes that some writers take off a limit


@dataclass(frozen=True)
class Source:
    """A file, or a part of it, that libsndfile reads in one go."""

    part: Part | None
    frames: int  # As declared; ``UNKNOWN`` or more if they are not.
    rate: int


class _Sound(soundfile.SoundFile):
    """Read from start to end only: a FLAC stream of unknown length cannot seek."""

    def seekable(self) -> bool:
        return False


def decode(path: Path, most_s: float | None = None) -> Iterator[tuple[np.ndarray, int]]:
    """Pieces (n,) with the average of the channels, and their rate in Hz: the parts of a file may have several. Raises
    UserError: not readable, cut off, or longer than ``most_s``, which is refused at once where it is declared."""
    sources = _find_sources(path)
    _refuse_long(path, _declared_s(sources) or 0, most_s)
    pieces = ffmpeg.decode(path, sources) if isinstance(sources, str) else _decode(path, sources)
    seconds = 0.0
    for piece, rate in pieces:
        seconds += len(piece) / rate
        _refuse_long(path, seconds, most_s)
        yield piece, rate


def duration_s(path: str | Path) -> float:
    """Seconds of a file as ``decode`` reads it, or a guess by its size where it cannot be read."""
    path = Path(path)
    try:
        sources = _find_sources(path)
        seconds = ffmpeg.measure_s(path) if isinstance(sources, str) else _declared_s(sources)
        if seconds is None and not isinstance(sources, str):
            seconds = sum(len(piece) / rate for piece, rate in _decode(path, sources))
    except (ValueError, OSError):  # UserError, and what mmap says of an empty file
        seconds = None
    if seconds is None:
        seconds = path.stat().st_size / 16000 if path.is_file() else 0.0
    return seconds


def _find_sources(path: Path) -> list[Source] | str:
    """What libsndfile reads of a file; or why it cannot, so that ffmpeg has to. Raises UserError: cut off."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            # Before libsndfile, which warns about several on stderr, or refuses them.
            parts = split_mp3(path, data) or split_chunks(data)
            if not parts:
                with _open(path, file, None) as sound:
                    whole, log = Source(None, sound.frames, sound.samplerate), sound.extra_info
                    kind, subtype, channels = sound.format, sound.subtype, sound.channels
                if subtype in ("MPEG_LAYER_I", "MPEG_LAYER_II") or "multi-segment" in log:
                    refuse_several(path, data)
                    return "it does not declare its length"
                parts = split_mp3(path, data, REACH) if kind == "MP3" else split(path, data, kind, whole.frames)
                if not parts:
                    _refuse_cut(path, log, channels, data[:1024], whole.frames)
                    return [whole]
            if len(parts) > MOST:
                raise UserError(f"{path}: more than {MOST} recordings one after another")
            sources = []
            for part in parts:
                with _open(path, file, part) as sound:
                    _refuse_cut(path, sound.extra_info, sound.channels, b"", sound.frames)
                    sources.append(Source(part, sound.frames, sound.samplerate))
            return sources
        except soundfile.LibsndfileError as error:
            if data[:4] in (b"OggS", b"caff"):  # cut off, it is often refused
                split(path, data, "OGG" if data[:4] == b"OggS" else "CAF", 0)
            refuse_several(path, data)
            return error.error_string.rstrip(".")


def _open(path: Path, file: IO[bytes], part: Part | None) -> _Sound:
    return _Sound(os.fsencode(path) if part is None else PartReader(file, part))  # names may not be UTF-8


def _refuse_cut(path: Path, log: str, channels: int, head: bytes, frames: int) -> None:
    """libsndfile shortens a file whose samples are cut off, and reports it only in its log, or not at all."""
    length = re.search(r"^Length : (\d+)", log, re.M)
    for numbers in DECLARED.findall(log):
        declared, there = (int(number, 0) for number in numbers)
        # Recorders that stream write a large number, because they cannot know; some writers count the header too.
        size = int(length[1]) if length else 0
        counted = declared in (size, size - 8) or (WHOLE.search(log) is not None and declared <= 2 * size)
        if declared > there and not counted and not _is_limit(declared, channels):
            raise UserError(f"{path}: truncated: {there} of {declared} bytes are there")
    sphere = re.search(rb"^sample_count -i (\d+)$", head, re.M) if head.startswith(b"NIST") else None
    if "Seems to be a truncated file" in log or (sphere and int(sphere[1]) > frames):
        raise UserError(f"{path}: truncated: {frames} frames are there")


def _is_limit(declared: int, channels: int) -> bool:
    """Whether a length in bytes stands for an unknown one: a limit in whole frames, perhaps less the header."""
    off = (limit - header - declared for limit in LIMITS for header in HEADERS)
    return declared >= 1 << 62 or any(0 <= bytes_off < 4 * channels for bytes_off in off)


def _declared_s(sources: list[Source] | str) -> float | None:
    """Seconds; None if they are not declared."""
    if isinstance(sources, str) or any(source.frames >= UNKNOWN for source in sources):
        return None
    return sum(source.frames / source.rate for source in sources)


def _decode(path: Path, sources: list[Source]) -> Iterator[tuple[np.ndarray, int]]:
    with open(path, "rb") as opened:
        for source in sources:
            try:
                with _open(path, opened, source.part) as file:
                    frames, size = 0, max(1, BLOCK // file.channels)
                    while len(block := file.read(size, dtype="float32", always_2d=True)):
                        frames += len(block)
                        with np.errstate(invalid="ignore", over="ignore"):  # read_pieces refuses NaN and infinity
                            mono = block.mean(axis=1)
                        yield mono, file.samplerate
            except soundfile.LibsndfileError as error:
                raise UserError(f"{path}: damaged or truncated ({error.error_string.rstrip('.')})") from error
            if frames < source.frames < UNKNOWN:
                raise UserError(f"{path}: truncated: {frames} of {source.frames} frames are there")


def _refuse_long(path: Path, seconds: float, most_s: float | None) -> None:
    if most_s is not None and seconds > most_s:
        raise UserError(f"{path}: longer than {most_s:g} s; give a shorter piece of it")
