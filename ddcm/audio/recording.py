"""A recording of any length on disk: decoded once, in pieces, and then read at any place."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch

from ddcm.audio.files import read_pieces
from ddcm.audio.level import Level, measure_pieces

BYTES = 4  # of a float32 sample


class SpooledAudio:
    """Mono float32 samples in a temporary file, and their level. Only the slice asked for is in memory. ``len(audio)``
    and ``audio[a:b]`` are those of the tensor (S,) that ``read_audio`` returns."""

    def __init__(self, file: IO[bytes], samples: int, level: Level):
        self._file, self._samples, self.level = file, samples, level

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, part: slice) -> torch.Tensor:
        start, stop, _ = part.indices(self._samples)
        self._file.seek(start * BYTES)
        data = self._file.read(max(0, stop - start) * BYTES)
        return torch.from_numpy(np.frombuffer(data, np.float32).copy())


@contextmanager
def spool_audio(path: str | Path, sample_rate: int) -> Iterator[SpooledAudio]:
    """An audio file as ``SpooledAudio`` at ``sample_rate``. The temporary file (230 MB an hour) ends with the block.
    Raises UserError: as ``read_audio``."""
    with tempfile.TemporaryFile(prefix="ddcm-") as file:

        def write_pieces() -> Iterator[torch.Tensor]:
            for piece in read_pieces(path, sample_rate):
                file.write(piece.tobytes())
                yield torch.from_numpy(piece)

        level = measure_pieces(write_pieces())
        yield SpooledAudio(file, file.tell() // BYTES, level)
