"""Codes of a fitted codebook, entropy coded. Kept beside DDCM so that the two can be compared in one format.

The range coder is constriction's; ``code_model`` says how likely each symbol is.
"""

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch

from ddcm.codec.codes.context import find_revision, fix_atoms, load_context
from ddcm.codec.codes.model import CellModel, CountModel, Counts
from ddcm.errors import UserError
from ddcm.quantize.base import Quantizer

CodeRow = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (codes (n,), weights (n, symbols)) -> codes (n,)


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


def decode_codes(codes: np.ndarray, quantizer: Quantizer) -> torch.Tensor:
    """Codes int32 (Q, L, F) -> latent (1, D, L, F). The code K adds nothing."""
    atoms = quantizer.level_atoms
    if atoms is None or not (codes == quantizer.codebook_size).any():
        return quantizer.decode(from_levels(codes, quantizer))
    atoms = torch.cat([atoms.detach(), torch.zeros_like(atoms[:, :1])], dim=1)
    index = torch.from_numpy(codes.astype(np.int64)).to(atoms.device)
    return sum(table[level] for table, level in zip(atoms, index, strict=False)).movedim(-1, 0)[None]


def choose_revision(quantizer: Quantizer, latent_digest: str | None) -> int:
    """The model for codes of this quantizer. ``latent_digest`` None: the codes are not those of a latent by itself, so
    that no context is known."""
    if quantizer.level_atoms is None:
        return 0
    return max(1, find_revision(latent_digest) if latent_digest else 0)


def make_model(
    quantizer: Quantizer, levels: int, bands: int, revision: int, latent_digest: str
) -> CountModel | CellModel:
    """The model of encoder and decoder. Raises UserError: this ddcm does not have it."""
    if revision:
        return make_cell_model(quantizer, levels, bands, revision, latent_digest)
    return CountModel(_start_counts(quantizer, levels, bands), bands)


def make_cell_model(quantizer: Quantizer, levels: int, bands: int, revision: int, latent_digest: str) -> CellModel:
    """Of revision 1 or more. Raises UserError: the quantizer has no atoms to add up, or the revision is not here."""
    atoms, usage = quantizer.level_atoms, quantizer.atom_usage()
    if atoms is None:
        raise UserError("the .ddcm file's header is damaged: its codebook has no atoms to add up")
    shares = torch.full(atoms.shape[:2], 1 / atoms.shape[1]) if usage is None else usage
    fixed = fix_atoms(*(x.detach().float().cpu().numpy()[:levels] for x in (atoms, shares)))
    try:
        net = load_context(latent_digest, revision) if revision > 1 else None
    except OSError as error:
        raise UserError(f"its codes have a context model of revision {revision}, which this ddcm lacks") from error
    return CellModel(_start_counts(quantizer, levels, bands), fixed, net)


def _start_counts(quantizer: Quantizer, levels: int, bands: int) -> Counts:
    usage = quantizer.atom_usage()
    return Counts(None if usage is None else usage.detach().cpu().numpy(), levels, bands, quantizer.codebook_size)


class Encoder:
    """Codes windows one after the other into bytes."""

    def __init__(self, quantizer: Quantizer, levels: int, bands: int, revision: int = 0, latent_digest: str = ""):
        from constriction import stream  # its submodules are attributes, not modules

        self._coder, self._family = stream.queue.RangeEncoder(), stream.model.Categorical(perfect=False)
        self._model = make_model(quantizer, levels, bands, revision, latent_digest)

    def write(self, codes: np.ndarray) -> None:
        """Codes (Q, L, F) of the next window; after K, the end of a cell, nothing else."""

        def encode(row: np.ndarray, weights: np.ndarray) -> np.ndarray:
            self._coder.encode(row, self._family, weights)
            return row

        _code_window(self._model, codes.copy(), encode)

    def getvalue(self) -> bytes:
        return self._coder.get_compressed().astype("<u4").tobytes()


def decode(
    payload: bytes, quantizer: Quantizer, windows: int, shape: tuple[int, int, int], revision: int = 0,
    latent_digest: str = "",
) -> Iterator[np.ndarray]:  # fmt: skip
    """int32 (Q, L, F) for each of the windows; ``shape`` is (Q, L, F). Raises UserError: the payload is not what an
    encoder writes."""
    from constriction import stream

    if len(payload) % 4:
        raise UserError("the .ddcm file is damaged: its payload is not made of whole words")
    coder = stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))
    family = stream.model.Categorical(perfect=False)
    model = make_model(quantizer, shape[0], shape[2], revision, latent_digest)
    for number in range(windows):
        codes = np.full(shape, quantizer.codebook_size, np.int32)
        try:
            _code_window(model, codes, lambda row, weights: coder.decode(family, weights))
        except (AssertionError, ValueError) as error:
            raise UserError(f"the .ddcm file is damaged: its codes end in window {number}") from error
        if number + 1 == windows and not coder.maybe_exhausted():
            raise UserError("the .ddcm file is damaged: its payload has more than its codes")
        yield codes


def _code_window(model: CountModel | CellModel, codes: np.ndarray, code_row: CodeRow) -> None:
    """Pass the codes (Q, L, F) of a window through the coder, and write into them what comes back."""
    for frame in range(codes.shape[1]):
        for bands in model.cells():
            for level in range(len(codes)):
                at = bands[model.open_cells()]
                if not len(at):
                    break
                row = code_row(np.ascontiguousarray(codes[level, frame, at]), model.weights(level))
                codes[level, frame, at] = row
                model.update(level, row)
