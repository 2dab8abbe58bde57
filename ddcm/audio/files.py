"""Audio files in and out: any rate and any number of channels, read as mono float32."""

import errno
import io
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddcm.errors import UserError, describe_error
from ddcm.runtime.files import write_atomically

SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64",
            ".m4a", ".aac", ".wma"}  # fmt: skip
BLOCK = 1 << 20  # numbers read or written at a time
LONGEST = 6 * 3600 * 16000  # samples, 1.4 GB: a few kilobytes of FLAC can hold days of silence
RATES = (1000, 1_000_000)  # Hz: at a rate of 1, each second would become hours
FULL = "could not be written (is the disk full?)"
NUMBER = r"(0x[0-9A-Fa-f]+|[1-9]\d*|0)"
SHORTENED = re.compile(rf"^\s*data\s*:\s*{NUMBER}\s*\(should be\s+{NUMBER}\)", re.MULTILINE)


def find_audio(
    inputs: Iterable[str | Path], suffixes: Collection[str] = SUFFIXES, what: str = "audio"
) -> list[tuple[Path, Path]]:
    """Audio files in ``inputs``, sorted: (path, path relative to the input).

    A file is taken whatever its suffix, even if it is missing: reading it reports that. A folder is searched at every
    depth for known suffixes; hidden files are left out.

    Raises:
        UserError: a folder without audio.
    """
    files: list[tuple[Path, Path]] = []
    for source in map(Path, inputs):
        if not source.is_dir():
            files.append((source, Path(source.name)))
            continue
        inside = [
            path
            for path in sorted(source.rglob("*"))
            if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith(".")
        ]
        if not inside:
            raise UserError(f"no {what} in {source}: looked for {', '.join(sorted(suffixes))}")
        files += [(path, path.relative_to(source)) for path in inside]
    return files


def duration_s(path: str | Path) -> float:
    """Seconds of a file by its header, or a guess by its size where the header cannot be read."""
    import soundfile

    try:
        return soundfile.info(os.fsencode(path)).duration
    except (soundfile.LibsndfileError, OSError):
        return Path(path).stat().st_size / 16000 if Path(path).is_file() else 0.0


def read_audio(path: str | Path, sample_rate: int = 16000, most_s: float | None = None) -> torch.Tensor:
    """A recording as mono float32 (S,) at ``sample_rate``: channels averaged, resampled, level unchanged.

    S = max(1, round(frames of the file * sample_rate / rate of the file)). Memory is little more than the result.

    Args:
        most_s: seconds; a longer recording is refused before it is decoded.

    Raises:
        UserError: missing, unreadable or truncated, no samples, NaN or infinity, or more than ``LONGEST`` samples.
    """
    pieces = list(read_pieces(path, sample_rate, most_s))
    audio, start = np.empty(sum(map(len, pieces)), np.float32), 0
    while pieces:  # each piece is freed once it is copied: a long recording is not in memory twice
        piece = pieces.pop(0)
        audio[start : start + len(piece)] = piece
        start += len(piece)
    return torch.from_numpy(audio)


def read_pieces(path: str | Path, sample_rate: int, most_s: float | None = None) -> Iterator[np.ndarray]:
    """As ``read_audio``, in pieces (n,). Errors are raised when their place in the file is reached."""
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
    for piece in _resample_pieces(path, sample_rate, most_s):
        if not np.isfinite(piece).all():
            raise UserError(f"{path}: NaN or infinite samples; repair or leave out the file")
        total += len(piece)
        if total > LONGEST:
            raise UserError(f"{path}: longer than {LONGEST / sample_rate / 3600:.1f} h; cut it into several files")
        yield piece
    if total == 0:
        raise UserError(f"{path}: no samples in it")


def _resample_pieces(path: Path, target: int, most_s: float | None) -> Iterator[np.ndarray]:
    """Pieces (n,) at ``target`` Hz; together as many samples as ``resample`` makes of the whole."""
    stream, rate, samples_in, samples_out = None, target, 0, 0
    for piece, rate in _decode(path, most_s):
        _check_rate(rate, f"{path}: ")
        samples_in += len(piece)
        if rate == target:
            yield piece
            continue
        if stream is None:
            import soxr

            stream = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")
        resampled = stream.resample_chunk(piece)
        samples_out += len(resampled)
        yield resampled
    if stream is not None:
        missing = max(_resampled_size(samples_in, rate, target) - samples_out, 0)
        rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)[:missing]
        yield np.pad(rest, (0, missing - len(rest)))


def _resampled_size(samples: int, rate: int, target: int) -> int:
    return max(1, round(samples * target / rate))


def _check_rate(rate: int, prefix: str = "") -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise UserError(f"{prefix}a rate of {rate} Hz; {RATES[0]} to {RATES[1]} Hz are read")


def resample(audio: np.ndarray, rate: int, target: int) -> np.ndarray:
    """float32 (S,) from ``rate`` to ``target`` Hz: max(1, round(S * target / rate)) samples."""
    if rate == target:
        return audio
    import soxr

    size = _resampled_size(len(audio), rate, target)
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
    _check_rate(sample_rate)
    audio = torch.from_numpy(resample(audio.numpy(), sample_rate, target))
    if not torch.isfinite(audio).all():
        raise UserError("audio has NaN or infinite samples")
    return audio


def _decode(path: Path, most_s: float | None) -> Iterator[tuple[np.ndarray, int]]:
    """Pieces (n,) with the average of the channels, and the file's rate in Hz."""
    import soundfile

    try:
        file = soundfile.SoundFile(os.fsencode(path))  # names may be bytes that are not UTF-8
    except soundfile.LibsndfileError as error:
        yield _decode_with_librosa(path, error, most_s)
        return
    with file:
        _refuse_truncated(path, file.extra_info)
        _refuse_long(path, file.frames, file.samplerate, most_s)
        frames, size = 0, max(1, BLOCK // file.channels)
        try:
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                frames += len(block)
                with np.errstate(invalid="ignore", over="ignore"):  # read_pieces refuses NaN and infinity
                    mono = block.mean(axis=1)
                yield mono, file.samplerate
        except soundfile.LibsndfileError as error:
            raise UserError(f"{path}: damaged or truncated ({error.error_string.rstrip('.')})") from error
        if frames < file.frames:
            raise UserError(f"{path}: truncated: {frames} of {file.frames} frames are there")


def _refuse_long(path: Path, samples: int, rate: int, most_s: float | None) -> None:
    if most_s is not None and samples > most_s * rate:
        raise UserError(f"{path}: longer than {most_s:g} s; give a shorter piece of it")


def _refuse_truncated(path: Path, log: str) -> None:
    """libsndfile shortens a file whose data chunk is cut off, and reports it only in its log."""
    for declared, actual in SHORTENED.findall(log):
        # Recorders that stream write 0 or the largest number, because they cannot know.
        if int(declared, 0) not in (0, 0xFFFFFFFF) and int(declared, 0) > int(actual, 0):
            raise UserError(f"{path}: truncated: {int(actual, 0)} of {int(declared, 0)} bytes are there")


def _decode_with_librosa(path: Path, reason: Any, most_s: float | None) -> tuple[np.ndarray, int]:
    """What libsndfile cannot read for ``reason``, by librosa's decoders (ffmpeg, where it is installed)."""
    import librosa

    # A second more than allowed is enough to see that the recording is too long.
    most = LONGEST / 16000 if most_s is None else most_s + 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            audio, rate = librosa.load(path, sr=None, mono=True, duration=most)
    except Exception as error:  # audioread raises its backends' own errors
        raise UserError(f"{path}: not readable as audio ({reason.error_string.rstrip('.')})") from error
    _refuse_long(path, len(audio), int(rate), most_s)
    return audio.astype(np.float32), int(rate)


def write_audio(path: str | Path, audio: torch.Tensor, sample_rate: int) -> None:
    """Write audio (S,) as 16-bit PCM, clipped to [-1, 1], whole or not at all. The suffix chooses wav or flac.

    Raises:
        OSError: it cannot be written.
    """
    with audio_writer(path, sample_rate) as write:
        write(audio)


def encode_wav(audio: torch.Tensor, sample_rate: int) -> bytes:
    """Audio (S,) as the bytes of a 16-bit wav, clipped to [-1, 1]."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, audio.float().cpu().clamp(-1, 1).numpy(), sample_rate, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


@contextmanager
def audio_writer(path: str | Path, sample_rate: int) -> Iterator[Callable[[torch.Tensor], None]]:
    """As ``write_audio``, piece by piece: yields a function that writes a piece (n,)."""
    import soundfile

    def write(audio: torch.Tensor) -> None:
        for piece in audio.detach().split(BLOCK):
            samples = piece.float().cpu().clamp(-1, 1).numpy()
            frames = file.frames
            with suppress(AssertionError):  # soundfile's way to report a short write
                file.write(samples)
            if file.frames - frames < len(samples):
                raise OSError(errno.EIO, FULL)

    kind = Path(path).suffix.lower().removeprefix(".").upper()
    with write_atomically(Path(path)) as temporary:
        try:
            with soundfile.SoundFile(os.fsencode(temporary), "w", sample_rate, 1, "PCM_16", format=kind) as file:
                yield write
        except soundfile.LibsndfileError as error:  # its message does not name the reason
            raise OSError(errno.EIO, FULL) from error
