"""Audio files in and out: any rate and any number of channels, read as mono float32."""

import errno
import io
import itertools
import logging
import math
import operator
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from numbers import Real
from pathlib import Path

import numpy as np
import torch

from ddcm.audio.decode import decode
from ddcm.audio.search import WRITTEN
from ddcm.errors import UserError, describe_error, to_one_line
from ddcm.runtime.files import resolve_shipped, write_atomically

log = logging.getLogger(__name__)

BLOCK = 1 << 20  # numbers read or written at a time
LONGEST = 6 * 3600 * 16000  # samples, 1.4 GB: a few kilobytes of FLAC can hold days of silence
RATES = (1000, 1_000_000)  # Hz: at a rate of 1, each second would become hours
FULL_SCALE = {torch.int8: 1 << 7, torch.uint8: 1 << 7, torch.int16: 1 << 15, torch.int32: 1 << 31}
CHANNELS = 64  # a longer "axis of channels" is that of a spectrogram or of time
LONGEST_WAV = (1 << 30) - 64  # samples: 4 GiB with the header, 18 h
FULL = "could not be written (is the disk full?)"


def read_audio(path: str | Path, sample_rate: int = 16000, most_s: float | None = None) -> torch.Tensor:
    """A recording as mono float32 (S,) at ``sample_rate``: channels averaged, resampled, level unchanged.

    S = max(1, round(frames of the file * sample_rate / rate of the file)). Memory is little more than the result.

    Args:
        most_s: seconds; a longer recording is refused before it is decoded.

    Raises UserError: missing, unreadable or truncated, no samples, NaN or infinity, or more than ``LONGEST`` samples.
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
    path = resolve_shipped(path)
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
    """Pieces (n,) at ``target`` Hz; of each rate together as many samples as ``resample`` makes of the whole."""
    for rate, pieces in itertools.groupby(decode(path, most_s), key=operator.itemgetter(1)):
        _check_rate(rate, f"{path}: ")
        if rate == target:
            yield from (piece for piece, _ in pieces)
            continue
        import soxr

        stream = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")
        samples_in, samples_out = 0, 0
        for piece, _ in pieces:
            resampled = stream.resample_chunk(piece)
            samples_in, samples_out = samples_in + len(piece), samples_out + len(resampled)
            yield resampled
        missing = max(_resampled_size(samples_in, rate, target) - samples_out, 0)
        rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)[:missing]
        yield np.pad(rest, (0, missing - len(rest)))


def _resampled_size(samples: int, rate: int, target: int) -> int:
    return max(1, round(samples * target / rate))


def _check_rate(rate: float, prefix: str = "") -> None:
    if not isinstance(rate, Real) or not RATES[0] <= rate <= RATES[1]:
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
    """An array, tensor or nested list at ``sample_rate`` -> float32 (S,) on the CPU, at ``target`` Hz.

    Audio is (S,), (channels, S) or (S, channels), as ``soundfile.read`` gives it: the longer axis is time. Channels are
    averaged. Floats are taken as they are, full scale is 1. int8, int16 and int32 are divided by 128, 2^15 and 2^31;
    uint8 is a wav's: silence is 128. Raises UserError: another type or shape, as many channels as samples or more than
    64, no samples, a rate that is not read, or NaN or infinite samples.
    """
    _check_rate(sample_rate)
    if not isinstance(audio, torch.Tensor):
        try:
            audio = np.asarray(audio)
            audio = torch.from_numpy(np.array(audio, audio.dtype.newbyteorder("="), order="C"))
        except (TypeError, ValueError) as error:  # ragged lists, text, objects
            raise UserError(f"audio is not an array of numbers ({describe_error(error)})") from error
    audio = audio.detach().cpu()
    if audio.dtype in FULL_SCALE:
        audio = (audio.double() - (128 if audio.dtype == torch.uint8 else 0)) / FULL_SCALE[audio.dtype]
    elif not audio.is_floating_point():
        kinds = "floats, int8, int16, int32 or uint8"
        raise UserError(f"audio of {str(audio.dtype).removeprefix('torch.')} has no known full scale; give {kinds}")
    audio = audio.float()
    if audio.ndim == 2:
        audio = _average_channels(audio)
    if audio.ndim != 1 or audio.numel() == 0:
        raise UserError(f"audio must be (S,), (channels, S) or (S, channels) with samples in it, not {(*audio.shape,)}")
    audio = torch.from_numpy(resample(audio.numpy(), sample_rate, target))
    if not torch.isfinite(audio).all():
        raise UserError("audio has NaN or infinite samples")
    return audio


def _average_channels(audio: torch.Tensor) -> torch.Tensor:
    """(channels, S) or (S, channels) -> (S,)."""
    channels, samples = sorted(audio.shape)
    if channels > CHANNELS or channels == samples > 1:
        raise UserError(
            f"audio of shape {(*audio.shape,)}: which axis is time? give (S,), or (channels, S) with S larger"
        )
    return audio.mean(dim=0 if len(audio) == channels else 1)


def write_audio(path: str | Path, audio: torch.Tensor, sample_rate: int) -> None:
    """Write audio (S,) without loss that metrics see, whole or not at all: ``.wav`` as 32-bit floats, the samples
    themselves; ``.flac``, which holds no floats, as 24-bit integers. Audio whose peak is above 1 is scaled to 1, and a
    warning is logged. Raises UserError: another suffix, or more than a wav holds (4 GiB). Raises OSError: it cannot be
    written."""
    kind = _choose_kind(Path(path))
    with write_atomically(Path(path)) as temporary:
        scale = _choose_scale(_peak(audio), Path(path).name)
        _write(temporary, kind, audio.split(BLOCK), len(audio), scale, sample_rate)


def encode_audio(audio: torch.Tensor, sample_rate: int, kind: str = "wav") -> bytes:
    """Audio (S,) as the bytes that ``write_audio`` writes; ``kind`` is ``wav`` or ``flac``."""
    file = io.BytesIO()
    _write(file, kind, [audio], len(audio), _choose_scale(_peak(audio), kind), sample_rate)
    return file.getvalue()


@contextmanager
def audio_writer(path: str | Path, sample_rate: int) -> Iterator[Callable[[torch.Tensor], None]]:
    """As ``write_audio``, piece by piece: yields a function that takes a piece (n,).

    The pieces are in a temporary file beside ``path`` (230 MB an hour) until the peak of all of them is known.
    """
    kind, peak = _choose_kind(Path(path)), 0.0
    with (
        write_atomically(Path(path)) as temporary,
        tempfile.TemporaryFile(dir=temporary.parent, prefix=".ddcm-") as pieces,
    ):

        def write(audio: torch.Tensor) -> None:
            nonlocal peak
            peak = max(peak, _peak(audio))
            pieces.write(audio.detach().float().cpu().numpy().tobytes())

        yield write
        samples = pieces.tell() // 4
        pieces.seek(0)
        blocks = iter(lambda: bytearray(pieces.read(4 * BLOCK)), b"")
        tensors = (torch.frombuffer(block, dtype=torch.float32) for block in blocks)
        _write(temporary, kind, tensors, samples, _choose_scale(peak, Path(path).name), sample_rate)


def _choose_kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in WRITTEN:
        raise UserError(f"{path}: audio is written as {' or '.join(WRITTEN)}; name one of them")
    return suffix.removeprefix(".")


def _write(
    target: Path | io.BytesIO, kind: str, pieces: Iterable[torch.Tensor], samples: int, scale: float, sample_rate: int
) -> None:
    blocks = (_scale(piece, scale).numpy() for piece in pieces)
    if kind == "wav":  # by hand: libsndfile writes the time of day into a wav of floats
        if samples > LONGEST_WAV:
            raise UserError(f"{samples} samples are more than a .wav holds; name a .flac")
        with open(target, "wb") if isinstance(target, Path) else nullcontext(target) as file:
            file.write(_wav_header(samples, sample_rate))
            for block in blocks:
                file.write(block.astype("<f4", copy=False).tobytes())
        return
    import soundfile

    name = os.fsencode(target) if isinstance(target, Path) else target
    try:
        with soundfile.SoundFile(name, "w", sample_rate, 1, "PCM_24", format="FLAC") as writer:
            for block in blocks:
                frames = writer.frames
                with suppress(AssertionError):  # soundfile's way to report a short write
                    writer.write(block)
                if writer.frames - frames < len(block):
                    raise OSError(errno.EIO, FULL)
    except soundfile.LibsndfileError as error:  # its message does not name the reason
        raise OSError(errno.EIO, FULL) from error


def _wav_header(samples: int, sample_rate: int) -> bytes:
    """Of 32-bit floats (format 3) in one channel: the chunks RIFF, fmt, fact and data."""
    size, rate, layout = 4 * samples, operator.index(sample_rate), "<4sI4s 4sIHHIIHHH 4sII 4sI"
    return struct.pack(
        layout, b"RIFF", struct.calcsize(layout) - 8 + size, b"WAVE", b"fmt ", 18, 3, 1, rate, 4 * rate, 4, 32, 0,
        b"fact", 4, samples, b"data", size,
    )  # fmt: skip


def _peak(audio: torch.Tensor) -> float:
    if audio.ndim != 1 or not audio.is_floating_point():
        raise ValueError(f"audio must be floats (S,), not {audio.dtype} {tuple(audio.shape)}")
    return max(float(audio.max()), -float(audio.min())) if len(audio) else 0.0


def _choose_scale(peak: float, name: str) -> float:
    """What makes a peak 1 that is above it by more than rounding."""
    if not 1 + 2**-16 < peak < math.inf:
        return 1.0
    log.warning("%s", to_one_line(f"{name}: peak {peak:.3g} is above full scale: written {1 / peak:.3g} times as loud"))
    return 1 / peak


def limit_to_full_scale(audio: torch.Tensor, name: str) -> torch.Tensor:
    """Audio (S,) as ``write_audio`` writes it to a ``.wav``, and as it is measured: scaled if its peak is above 1.
    ``name`` is for the warning."""
    return _scale(audio, _choose_scale(_peak(audio), name))


def _scale(audio: torch.Tensor, scale: float) -> torch.Tensor:
    return (audio.detach().float().cpu() * scale).clamp(-1, 1)
