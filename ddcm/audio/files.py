"""Audio files in and out: any rate, any channels, read as mono and levelled as AudioLDM2 was trained."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddcm.errors import UserError, describe_error
from ddcm.runtime.files import write_atomically

SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64",
            ".m4a", ".aac", ".wma"}  # fmt: skip
BLOCK = 1 << 20  # numbers read at a time: a recording is mixed down and resampled as it comes
LONGEST = 6 * 3600 * 16000  # samples: 1.4 GB. A few kilobytes of FLAC can claim, and hold, days of silence
RATES = (1000, 1_000_000)  # Hz; a rate of 1 would make hours of every second
FULL = "could not be written (is the disk full?)"
NUMBER = r"(0x[0-9A-Fa-f]+|[1-9]\d*|0)"
SHORTENED = re.compile(rf"^\s*data\s*:\s*{NUMBER}\s*\(should be\s+{NUMBER}\)", re.MULTILINE)


def find_audio(inputs: Iterable[str | Path]) -> list[tuple[Path, Path]]:
    """Files to work on, sorted, each with its name relative to what was given: (path, relative name).

    A file is taken whatever its suffix. A folder is searched at every depth for known suffixes; hidden files
    are left out.
    """
    found: list[tuple[Path, Path]] = []
    for given in map(Path, inputs):
        if given.is_dir():
            files = [
                path
                for path in sorted(given.rglob("*"))
                if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
            ]
            if not files:
                raise UserError(f"no audio in {given}: looked for {', '.join(sorted(SUFFIXES))}")
            found += [(path, path.relative_to(given)) for path in files]
        else:  # a missing one is reported when its turn comes, like any other unreadable file
            found.append((given, Path(given.name)))
    return found


def duration_s(path: str | Path) -> float:
    """Seconds of a file by its header; a guess by its size where that cannot be read. Nothing is decoded."""
    import soundfile

    try:
        return soundfile.info(os.fsencode(path)).duration
    except (soundfile.LibsndfileError, OSError):
        return Path(path).stat().st_size / 16000 if Path(path).is_file() else 0.0


def read_audio(path: str | Path, sample_rate: int = 16000, most_s: float | None = None) -> torch.Tensor:
    """A recording as mono float32 (S,) at ``sample_rate``: channels averaged, resampled, not levelled.

    S is the file's number of frames times the ratio of the rates, rounded, and at least 1. It takes little more memory
    than the result, whatever the file's rate, channels and claims. A recording longer than ``most_s`` seconds is
    refused before it is decoded.

    Raises:
        UserError: missing, unreadable or truncated, no samples, NaN or infinite samples, or more than ``LONGEST``.
    """
    pieces = list(read_pieces(path, sample_rate, most_s))
    return torch.from_numpy(_joined(pieces, sum(map(len, pieces))))


def read_pieces(path: str | Path, sample_rate: int, most_s: float | None = None) -> Iterator[np.ndarray]:
    """As ``read_audio``, in pieces (n,): what is raised for a place in the file is raised when it is reached."""
    path = Path(path)
    try:
        if not path.is_file():
            raise UserError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}")
        with open(path, "rb") as file:
            if not file.read(1):
                raise UserError(f"{path}: the file is empty (0 bytes)")
    except OSError as error:
        raise UserError(f"{path}: {describe_error(error)}") from error
    total = 0
    for piece in _resampled(path, sample_rate, most_s):
        if not np.isfinite(piece).all():
            raise UserError(f"{path}: NaN or infinite samples; repair or leave out the file")
        total += len(piece)
        if total > LONGEST:
            raise UserError(f"{path}: longer than {LONGEST / sample_rate / 3600:.1f} h; cut it into several files")
        yield piece
    if total == 0:
        raise UserError(f"{path}: no samples in it")


def _resampled(path: Path, target: int, most_s: float | None) -> Iterator[np.ndarray]:
    """Pieces (S,) of a recording at ``target`` Hz, as many samples in all as ``resample`` makes of it whole."""
    stream, rate, read, given = None, target, 0, 0
    for piece, rate in _mono(path, most_s):
        if not RATES[0] <= rate <= RATES[1]:
            raise UserError(f"{path}: a rate of {rate} Hz; {RATES[0]} to {RATES[1]} Hz are read")
        read += len(piece)
        if rate == target:
            yield piece
            continue
        if stream is None:
            import soxr

            stream = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")
        made = stream.resample_chunk(piece)
        given += len(made)
        yield made
    if stream is not None:
        left = _size(read, rate, target) - given
        rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)[: max(left, 0)]
        yield np.pad(rest, (0, max(left, 0) - len(rest)))


def _joined(pieces: list[np.ndarray], total: int) -> np.ndarray:
    """(total,), letting go of each piece once it is copied: a long recording is not there twice."""
    whole_one, at = np.empty(total, np.float32), 0
    while pieces:
        piece = pieces.pop(0)
        whole_one[at : at + len(piece)] = piece
        at += len(piece)
    return whole_one


def _size(samples: int, rate: int, target: int) -> int:
    """Samples at ``target`` Hz of so many at ``rate`` Hz."""
    return max(1, round(samples * target / rate))


def resample(audio: np.ndarray, rate: int, target: int) -> np.ndarray:
    """float32 (S,) from ``rate`` to ``target`` Hz, round(S * target / rate) samples, at least one."""
    if rate == target:
        return audio
    import soxr

    size = _size(len(audio), rate, target)
    result = soxr.resample(audio, rate, target, quality="HQ")[:size]
    return np.pad(result, (0, size - len(result)))


def to_mono(audio, sample_rate: int, target: int) -> torch.Tensor:
    """Audio (S,) or (channels, S), array or tensor, at ``sample_rate`` -> float32 (S,) on the CPU, at ``target`` Hz.

    Raises:
        UserError: another shape, no samples, a rate that is not read, or NaN or infinite samples.
    """
    audio = torch.as_tensor(np.asarray(audio) if not isinstance(audio, torch.Tensor) else audio)
    audio = audio.detach().float().cpu()
    if audio.ndim == 2:
        audio = audio.mean(dim=0)
    if audio.ndim != 1 or audio.numel() == 0:
        raise UserError(f"audio must be (S,) or (channels, S) with samples in it, not {tuple(audio.shape)}")
    if not RATES[0] <= sample_rate <= RATES[1]:
        raise UserError(f"a rate of {sample_rate} Hz; {RATES[0]} to {RATES[1]} Hz are read")
    audio = torch.from_numpy(resample(audio.numpy(), sample_rate, target))
    if not torch.isfinite(audio).all():
        raise UserError("audio has NaN or infinite samples")
    return audio


def _mono(path: Path, most_s: float | None) -> Iterator[tuple[np.ndarray, int]]:
    """Pieces (S,) with the average of the channels, and the file's rate."""
    import soundfile

    try:
        file = soundfile.SoundFile(os.fsencode(path))  # whatever bytes the name is made of
    except soundfile.LibsndfileError as error:
        yield _read_with_librosa(path, error, most_s)
        return
    with file:
        _refuse_truncated(path, file.extra_info)
        _refuse_long(path, file.frames, file.samplerate, most_s)
        read, size = 0, max(1, BLOCK // file.channels)
        try:
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                read += len(block)
                with np.errstate(invalid="ignore", over="ignore"):  # refused where it is seen
                    mono = block.mean(axis=1)
                yield mono, file.samplerate
        except soundfile.LibsndfileError as error:
            raise UserError(f"{path}: damaged or truncated ({error.error_string.rstrip('.')})") from error
        if read < file.frames:
            raise UserError(f"{path}: truncated: {read} of {file.frames} frames are there")


def _refuse_long(path: Path, samples: int, rate: int, most_s: float | None) -> None:
    if most_s is not None and samples > most_s * rate:
        raise UserError(f"{path}: longer than {most_s:g} s; give a shorter piece of it")


def _refuse_truncated(path: Path, log: str) -> None:
    """libsndfile shortens a file whose data chunk is cut off and says so only in its log."""
    for declared, actual in SHORTENED.findall(log):
        # Recorders that stream write 0 or the largest number, because they cannot know.
        if int(declared, 0) not in (0, 0xFFFFFFFF) and int(declared, 0) > int(actual, 0):
            raise UserError(f"{path}: truncated: {int(actual, 0)} of {int(declared, 0)} bytes are there")


def _read_with_librosa(path: Path, reason: Any, most_s: float | None) -> tuple[np.ndarray, int]:
    """What libsndfile cannot read, and its ``reason``, through librosa's decoders (ffmpeg, where it is installed)."""
    import warnings

    import librosa

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A second more than allowed is enough to see that it is too long.
            most = LONGEST / 16000 if most_s is None else most_s + 1
            audio, rate = librosa.load(path, sr=None, mono=True, duration=most)
    except Exception as error:  # audioread raises its backends' own errors
        raise UserError(f"{path}: not readable as audio ({reason.error_string.rstrip('.')})") from error
    _refuse_long(path, len(audio), int(rate), most_s)
    return audio.astype(np.float32), int(rate)


def write_audio(path: str | Path, audio: torch.Tensor, sample_rate: int) -> None:
    """Audio (S,) as 16-bit PCM, clipped to [-1, 1]; the suffix of ``path`` says wav or flac. Whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with audio_writer(path, sample_rate) as write:
        write(audio)


def encode_wav(audio: torch.Tensor, sample_rate: int) -> bytes:
    """Audio (S,) as the bytes of a 16-bit wav, clipped to [-1, 1]."""
    import io

    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, audio.float().cpu().clamp(-1, 1).numpy(), sample_rate, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


@contextmanager
def audio_writer(path: str | Path, sample_rate: int) -> Iterator[Callable[[torch.Tensor], None]]:
    """As ``write_audio``, for audio that comes piece by piece: yields what writes a piece (S,)."""
    import soundfile

    suffix = Path(path).suffix.lower().removeprefix(".")

    def write(audio: torch.Tensor) -> None:
        for piece in audio.detach().split(BLOCK):
            samples = piece.float().cpu().clamp(-1, 1).numpy()
            before = file.frames
            with suppress(AssertionError):  # how soundfile says that less was written than was given
                file.write(samples)
            if file.frames - before < len(samples):
                raise OSError(errno.EIO, FULL)

    with write_atomically(Path(path)) as temporary:
        try:
            with soundfile.SoundFile(
                os.fsencode(temporary), "w", sample_rate, 1, "PCM_16", format=suffix.upper()
            ) as file:
                yield write
        except soundfile.LibsndfileError as error:  # it keeps the reason to itself
            raise OSError(errno.EIO, FULL) from error
