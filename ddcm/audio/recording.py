"""A recording of any length on disk: read once, in pieces, and then at any place."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch

from ddcm.audio.files import read_pieces
from ddcm.audio.level import Level, level_of

BYTES = 4  # of a float32 sample


class SpooledAudio:
    """Mono float32 samples at one rate in a temporary file, and their level; no more is held than is asked for.

    ``len(recording)`` and ``recording[a:b]`` are those of the tensor (S,) that ``read_audio`` gives.
    """

    def __init__(self, file: IO[bytes], samples: int, level: Level):
        self._file, self._samples, self.level = file, samples, level

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, part: slice) -> torch.Tensor:
        start, stop, _ = part.indices(self._samples)
        self._file.seek(start * BYTES)
        raw = self._file.read(max(0, stop - start) * BYTES)
        return torch.from_numpy(np.frombuffer(raw, np.float32).copy())


@contextmanager
def spool_audio(path: str | Path, sample_rate: int) -> Iterator[SpooledAudio]:
    """An audio file as a ``Recording`` at ``sample_rate``; the temporary file (230 MB an hour) goes with the block.

    Raises:
        UserError: as ``read_audio``.
    """
    with tempfile.TemporaryFile(prefix="ddcm-") as file:
        samples, total, least, most = 0, 0.0, np.inf, -np.inf
        for piece in read_pieces(path, sample_rate):
            file.write(np.ascontiguousarray(piece, np.float32).tobytes())
            samples += len(piece)
            total += float(piece.sum(dtype=np.float64))
            least, most = min(least, float(piece.min(initial=np.inf))), max(most, float(piece.max(initial=-np.inf)))
        yield SpooledAudio(file, samples, level_of(total / samples, least, most))
