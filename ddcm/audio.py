"""Audio files in and out: any rate, any channels, read as mono and levelled as AudioLDM2 was trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ddcm.errors import UserError
from ddcm.files import whole

SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64",
            ".m4a", ".aac", ".wma"}  # fmt: skip
BLOCK = 1 << 20  # frames read at a time: an hour of eight channels is mixed down as it comes
PEAK = 0.5  # AudioLDM's training level
SILENCE = 1e-6  # a peak below this is not brought up: it would be rounding noise


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


def read_audio(path: str | Path, sample_rate: int = 16000, most_s: float | None = None) -> torch.Tensor:
    """A recording as mono float32 (S,) at ``sample_rate``: channels averaged, resampled, not levelled.

    S is the file's number of frames times the ratio of the rates, rounded, and at least 1. A recording longer
    than ``most_s`` seconds is refused before it is decoded.

    Raises:
        UserError: missing, unreadable or truncated, too long, no samples, or NaN or infinite samples.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty (0 bytes)")
    mono, rate = _read_mono(path, most_s)
    if len(mono) == 0:
        raise UserError(f"{path}: no samples in it")
    if not np.isfinite(mono).all():
        raise UserError(f"{path}: NaN or infinite samples; repair or leave out the file")
    return torch.from_numpy(resample(mono, rate, sample_rate))


def resample(audio: np.ndarray, rate: int, target: int) -> np.ndarray:
    """float32 (S,) from ``rate`` to ``target`` Hz, round(S * target / rate) samples, at least one."""
    if rate == target:
        return audio
    import soxr

    size = max(1, round(len(audio) * target / rate))
    result = soxr.resample(audio, rate, target, quality="HQ")[:size]
    return np.pad(result, (0, size - len(result)))


def _refuse_long(path: Path, seconds: float, most_s: float | None) -> None:
    if most_s is not None and seconds > most_s:
        raise UserError(f"{path}: longer than {most_s:g} s; give a shorter piece of it")


def _read_mono(path: Path, most_s: float | None) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        return _read_with_librosa(path, error, most_s)
    with file:
        _refuse_truncated(path, file.extra_info)
        _refuse_long(path, file.frames / file.samplerate, most_s)
        try:
            blocks = [b.mean(axis=1) for b in file.blocks(BLOCK, dtype="float32", always_2d=True)]
        except soundfile.LibsndfileError as error:
            raise UserError(f"{path}: damaged or truncated ({str(error).rstrip('.')})") from error
        read = sum(map(len, blocks))
        if read < file.frames:
            raise UserError(f"{path}: truncated: {read} of {file.frames} frames are there")
        return np.concatenate(blocks or [np.zeros(0, np.float32)]), file.samplerate


def _refuse_truncated(path: Path, log: str) -> None:
    """libsndfile shortens a file whose data chunk is cut off and says so only in its log."""
    for line in log.splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "data" and "(should be" in rest:
            declared, actual = rest.split("(should be")
            # Recorders that stream write 0 or the largest number, because they cannot know.
            if int(declared) not in (0, 0xFFFFFFFF) and int(declared) > int(actual.rstrip(" )")):
                there = actual.rstrip(" )").strip()
                raise UserError(f"{path}: truncated: {there} of {declared.strip()} bytes are there")


def _read_with_librosa(path: Path, reason: Exception, most_s: float | None) -> tuple[np.ndarray, int]:
    """What libsndfile cannot read, through librosa's other decoders (ffmpeg, where it is installed)."""
    import warnings

    import librosa

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A second more than allowed is enough to see that it is too long.
            audio, rate = librosa.load(path, sr=None, mono=True, duration=None if most_s is None else most_s + 1)
    except Exception as error:  # audioread raises its backends' own errors
        raise UserError(f"{path}: not readable as audio ({str(reason).rstrip('.')})") from error
    _refuse_long(path, len(audio) / rate, most_s)
    return audio.astype(np.float32), int(rate)


def write_audio(path: str | Path, audio: torch.Tensor, sample_rate: int) -> None:
    """Audio (S,) as 16-bit PCM, clipped to [-1, 1]; the suffix of ``path`` says wav or flac. Whole or not at all."""
    import soundfile

    samples = audio.detach().float().cpu().clamp(-1, 1).numpy()
    with whole(Path(path)) as temporary:
        soundfile.write(temporary, samples, sample_rate, subtype="PCM_16")


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
    with (
        whole(Path(path)) as temporary,
        soundfile.SoundFile(temporary, "w", sample_rate, 1, "PCM_16", format=suffix.upper()) as file,
    ):
        yield lambda audio: file.write(audio.detach().float().cpu().clamp(-1, 1).numpy())


@dataclass(frozen=True)
class Level:
    """How a recording was moved to AudioLDM2's level: levelled = (audio - mean) * gain."""

    mean: float
    gain: float

    def undo(self, audio: torch.Tensor) -> torch.Tensor:
        return audio / self.gain + self.mean


def level(audio: torch.Tensor) -> tuple[torch.Tensor, Level]:
    """Audio (S,) -> zero mean and peak 0.5, as in AudioLDM's training, and how to undo it. Silence stays."""
    mean = float(audio.double().mean())
    centred = audio - mean
    peak = float(centred.abs().max())
    gain = PEAK / peak if peak > SILENCE else 1.0
    return centred * gain, Level(mean, gain)
