"""Codes of a fitted codebook, entropy coded: the plain way, kept beside DDCM so that the two can be compared in one
format.

The range coder is constriction's. Its model is the codebook's own usage, refined by what was coded so far, band by
band: integer counts on both sides, so that the decoder has the very same model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch

from ddcm.errors import UserError
from ddcm.quantize.base import Quantizer

PRIOR = 4096  # counts that the codebook's usage is worth
OWN_BAND = 8  # how much more a code tells of its own band than of the others
SEEN = 16  # counts that a code that was met is worth


def digest(quantizer: Quantizer) -> str:
    """Names a fitted codebook by all its numbers: 16 hexadecimal digits."""
    sha = hashlib.sha256()
    for name, tensor in sorted(quantizer.state_dict().items()):
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]


def to_levels(codes: torch.Tensor, shape: torch.Size) -> np.ndarray:
    """Codes of one window, (1, L, F), (1, Q, L, F) or (1, L, F, Q) -> int32 (Q, L, F). ``shape`` is that of z."""
    cells, codes = tuple(shape[2:]), codes[0].cpu()
    if codes.ndim == 2:
        codes = codes[None]
    elif tuple(codes.shape[1:]) != cells:
        codes = codes.movedim(-1, 0)
    return codes.numpy().astype(np.int32)


def from_levels(levels: np.ndarray, quantizer: Quantizer, shape: tuple[int, ...]) -> torch.Tensor:
    """The inverse of ``to_levels`` for this quantizer: where it keeps its levels is seen on an empty window."""
    device = next(iter(quantizer.state_dict().values())).device
    codes = torch.from_numpy(levels.astype(np.int64))
    like = quantizer.encode(torch.zeros(shape, device=device))
    if like.ndim == 3:
        codes = codes[0]
    elif tuple(like.shape[2:]) != tuple(shape[2:]):
        codes = codes.movedim(0, -1)
    return codes[None].to(device)


class _Counts:
    """The model of both sides: (Q, F, K) integer frequencies."""

    def __init__(self, quantizer: Quantizer, levels: int, bands: int):
        start = np.ones((levels, quantizer.codebook_size), np.int64)
        usage = quantizer.atom_usage()
        if usage is not None:
            share = np.clip(usage[:levels].detach().cpu().double().numpy(), 0, 1)
            start += np.round(share * PRIOR * SEEN).astype(np.int64)
        self.shared, self.own = start, np.zeros((levels, bands, start.shape[1]), np.int64)

    def weights(self, level: int) -> np.ndarray:
        """float32 (F, K) whose values are integers."""
        return (self.shared[level] + OWN_BAND * self.own[level]).astype(np.float32)

    def saw(self, level: int, codes: np.ndarray) -> None:
        """Codes (F,) of one latent frame."""
        np.add.at(self.shared[level], codes, SEEN)
        np.add.at(self.own[level], (np.arange(len(codes)), codes), SEEN)


class Encoder:
    """Windows of codes in, bytes out."""

    def __init__(self, quantizer: Quantizer, levels: int, bands: int):
        from constriction import stream  # submodules are attributes there, not modules

        self._coder, self._model = stream.queue.RangeEncoder(), stream.model.Categorical(perfect=False)
        self._counts = _Counts(quantizer, levels, bands)

    def write(self, codes: np.ndarray) -> None:
        """Codes (Q, L, F) of the next window."""
        for frame in np.moveaxis(codes, 1, 0):
            for level, row in enumerate(np.ascontiguousarray(frame)):
                self._coder.encode(row, self._model, self._counts.weights(level))
                self._counts.saw(level, row)

    def getvalue(self) -> bytes:
        return self._coder.get_compressed().astype("<u4").tobytes()


def decode(payload: bytes, quantizer: Quantizer, windows: int, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """int32 (Q, L, F) for each of the windows; ``shape`` is (Q, L, F).

    Raises:
        UserError: the payload is not what an encoder writes.
    """
    from constriction import stream

    levels, frames, bands = shape
    if len(payload) % 4:
        raise UserError("the .ddcm file is damaged: its payload is not made of whole words")
    coder = stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))
    family, counts = stream.model.Categorical(perfect=False), _Counts(quantizer, levels, bands)
    for number in range(windows):
        codes = np.empty(shape, np.int32)
        try:
            for frame in range(frames):
                for level in range(levels):
                    codes[level, frame] = coder.decode(family, counts.weights(level))
                    counts.saw(level, codes[level, frame])
        except (AssertionError, ValueError) as error:
            raise UserError(f"the .ddcm file is damaged: its codes end in window {number}") from error
        if number + 1 == windows and not coder.maybe_exhausted():
            raise UserError("the .ddcm file is damaged: its payload has more than its codes")
        yield codes
