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


def duration_s(path: str | Path) -> float:
    """Seconds of a file by its header; a guess by its size where that cannot be read. Nothing is decoded."""
    import soundfile

    try:
        return soundfile.info(path).duration
    except (soundfile.LibsndfileError, OSError):
        return Path(path).stat().st_size / 16000 if Path(path).is_file() else 0.0


def read_audio(path: str | Path, sample_rate: int = 16000) -> torch.Tensor:
    """A recording as mono float32 (S,) at ``sample_rate``: channels averaged, resampled, not levelled.

    S is the file's number of frames times the ratio of the rates, rounded, and at least 1.

    Raises:
        UserError: missing, unreadable or truncated, no samples, or NaN or infinite samples.
    """
    rate, blocks = read_blocks(path)
    mono = np.concatenate(list(blocks))
    return torch.from_numpy(resample(mono, rate, sample_rate))


def read_blocks(path: str | Path) -> tuple[int, Iterator[np.ndarray]]:
    """A recording's sample rate, and its samples as mono float32 blocks (n,), at least one sample in all.

    Raises:
        UserError: as ``read_audio``; of what is inside the file, when its blocks are read.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty (0 bytes)")
    rate, blocks = _mono_blocks(path)
    return rate, _checked(path, blocks)


def _checked(path: Path, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    read = 0
    for block in blocks:
        read += len(block)
        if not np.isfinite(block).all():
            raise UserError(f"{path}: NaN or infinite samples; repair or leave out the file")
        yield block
    if read == 0:
        raise UserError(f"{path}: no samples in it")


def resample(audio: np.ndarray, rate: int, target: int) -> np.ndarray:
    """float32 (S,) from ``rate`` to ``target`` Hz, round(S * target / rate) samples, at least one."""
    if rate == target:
        return audio
    import soxr

    size = max(1, round(len(audio) * target / rate))
    result = soxr.resample(audio, rate, target, quality="HQ")[:size]
    return np.pad(result, (0, size - len(result)))


def _mono_blocks(path: Path) -> tuple[int, Iterator[np.ndarray]]:
    import soundfile

    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        audio, rate = _read_with_librosa(path, error)
        return rate, iter([audio])

    def blocks() -> Iterator[np.ndarray]:
        with file:
            _refuse_truncated(path, file.extra_info)
            read = 0
            try:
                for block in file.blocks(BLOCK, dtype="float32", always_2d=True):
                    read += len(block)
                    yield block.mean(axis=1)
            except soundfile.LibsndfileError as error:
                raise UserError(f"{path}: damaged or truncated ({str(error).rstrip('.')})") from error
            if read < file.frames:
                raise UserError(f"{path}: truncated: {read} of {file.frames} frames are there")

    return file.samplerate, blocks()


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


def _read_with_librosa(path: Path, reason: Exception) -> tuple[np.ndarray, int]:
    """What libsndfile cannot read, through librosa's other decoders (ffmpeg, where it is installed)."""
    import warnings

    import librosa

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            audio, rate = librosa.load(path, sr=None, mono=True)
    except Exception as error:  # audioread raises its backends' own errors
        raise UserError(f"{path}: not readable as audio ({str(reason).rstrip('.')})") from error
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
