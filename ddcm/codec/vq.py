"""Codes of a fitted codebook, entropy coded. Kept beside DDCM so that the two can be compared in one format.

The range coder is constriction's. Its model starts from the codebook's usage in training and counts the coded symbols,
for each band. Counts are integers, so that encoder and decoder have the same model.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch

from ddcm.errors import UserError
from ddcm.quantize.base import Quantizer

PRIOR = 4096  # coded symbols that the codebook's usage stands for
OWN_BAND = 8  # weight of a band's own counts over those of all bands
COUNT = 16  # count added per coded symbol


def digest(quantizer: Quantizer) -> str:
    """The name of a fitted codebook by all its numbers: 16 hexadecimal digits."""
    sha = hashlib.sha256()
    for name, tensor in sorted(quantizer.state_dict().items()):
        if name.endswith("initialised"):  # no number of the codebook
            continue
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]


def to_levels(codes: torch.Tensor) -> np.ndarray:
    """Codes of one window, (1, L, F) or (1, Q, L, F) -> int32 (Q, L, F)."""
    return codes[0].reshape(-1, *codes.shape[-2:]).cpu().numpy().astype(np.int32)


def from_levels(levels: np.ndarray, quantizer: Quantizer) -> torch.Tensor:
    """The inverse of ``to_levels``. The code of an empty cell shows whether the quantizer has an axis of levels."""
    device = next(iter(quantizer.state_dict().values())).device
    has_axis = quantizer.encode(torch.zeros(1, quantizer.embedding_dim, 1, 1, device=device)).ndim == 4
    codes = torch.from_numpy(levels.astype(np.int64)).to(device)
    return codes[None] if has_axis else codes


class _Counts:
    """The model of encoder and decoder: integer frequencies (Q, F, K)."""

    def __init__(self, quantizer: Quantizer, levels: int, bands: int):
        start = np.ones((levels, quantizer.codebook_size), np.int64)
        usage = quantizer.atom_usage()
        if usage is not None:
            share = np.clip(usage[:levels].detach().cpu().double().numpy(), 0, 1)
            start += np.round(share * PRIOR * COUNT).astype(np.int64)
        self.shared, self.own = start, np.zeros((levels, bands, start.shape[1]), np.int64)

    def weights(self, level: int) -> np.ndarray:
        """float32 (F, K) whose values are integers."""
        return (self.shared[level] + OWN_BAND * self.own[level]).astype(np.float32)

    def update(self, level: int, codes: np.ndarray) -> None:
        """Count codes (F,) of one latent frame."""
        np.add.at(self.shared[level], codes, COUNT)
        np.add.at(self.own[level], (np.arange(len(codes)), codes), COUNT)


class Encoder:
    """Codes windows one after the other into bytes."""

    def __init__(self, quantizer: Quantizer, levels: int, bands: int):
        from constriction import stream  # its submodules are attributes, not modules

        self._coder, self._model = stream.queue.RangeEncoder(), stream.model.Categorical(perfect=False)
        self._counts = _Counts(quantizer, levels, bands)

    def write(self, codes: np.ndarray) -> None:
        """Codes (Q, L, F) of the next window."""
        for frame in np.moveaxis(codes, 1, 0):
            for level, row in enumerate(np.ascontiguousarray(frame)):
                self._coder.encode(row, self._model, self._counts.weights(level))
                self._counts.update(level, row)

    def getvalue(self) -> bytes:
        return self._coder.get_compressed().astype("<u4").tobytes()


def decode(payload: bytes, quantizer: Quantizer, windows: int, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """int32 (Q, L, F) for each of the windows; ``shape`` is (Q, L, F). Raises UserError: the payload is not what an
    encoder writes."""
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
                    counts.update(level, codes[level, frame])
        except (AssertionError, ValueError) as error:
            raise UserError(f"the .ddcm file is damaged: its codes end in window {number}") from error
        if number + 1 == windows and not coder.maybe_exhausted():
            raise UserError("the .ddcm file is damaged: its payload has more than its codes")
        yield codes
