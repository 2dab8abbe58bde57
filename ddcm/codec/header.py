"""The header of a ``.ddcm`` file, and what follows from it. Encoder and decoder share it; it needs no model."""

import functools
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import get_args

from ddcm.audio.layout import FRAMES, OVERLAP, Layout, even_layout
from ddcm.codec.bitstream import split_evenly, subset_bits
from ddcm.codec.codec_settings import BASES, WITH_CODEBOOK, Book, Mode
from ddcm.codec.step_schedule import MAX_ATOMS, ExplicitSchedule, Schedule, expand
from ddcm.errors import UserError, is_utf8
from ddcm.recipes import DTYPES

MODES, BOOKS = get_args(Mode), get_args(Book)  # in the order of the flags, as DTYPES are
MEL = (16000, 1024, 160, 64, 0.0, 8000.0, 1e-5)  # AudioLDM2's: sample_rate, n_fft, hop, n_mels, fmin, fmax, floor
CHANNELS, BANDS = 8, MEL[3] // 4  # C and F of the latent
MAX_SAMPLES = 1 << 31  # 37 h
MAX_PROMPT, MAX_LOG2 = 2000, 20  # bytes of a prompt; log2 of the atoms of a noise codebook
MAX_GAIN = 32 * 256  # 1/256 of octaves; float32 has no room for more
EVEN = 64  # the share of a window that has as many atoms as the schedule says
DIGITS = 8  # hexadecimal digits of a digest that a file keeps
MIN_WINDOW_BITS = 64  # bits of a full window; fewer would let a small file claim hours of audio


@dataclass(frozen=True)
class Header:
    """All that a file records besides its payload."""

    mode: Mode
    backbone: str  # first digits of the digest of the denoiser, or for vq of that of the latent space
    samples: int  # length of the audio at the mel's sample rate
    mean: float = 0.0  # of the recording; the file keeps a half-precision number
    gain: int = 0  # log2 of the gain that brought the recording to AudioLDM2's level, in 1/256
    dtype: str = "float32"  # of the encoder's UNet
    stock_null: bool = False  # whether no prompt means diffusers' GPT2("") and not what AudioLDM2 was trained with
    mel: tuple[float, ...] = MEL  # fields of the ``MelSpec``
    seed: int = 0  # of the noise codebooks, in [0, 2^32)
    prompt: str = ""
    guidance: int = 256  # scale of classifier-free guidance under the prompt, in 1/256
    cache_interval: int = 1  # which UNet calls compute the deep layers: see ``ddcm.backbone.base.FeatureCache``
    book: Book = "hadamard"  # the noise codebook
    log2_atoms: int = 0  # log2 of the atoms of the noise codebook, or of one of its bases
    bases: int = 1  # that the atoms of a step are spread over
    coefficient_bits: int = 0  # classic: bits of the coefficient of each atom after the first of a step
    schedule: Schedule | None = None  # turbo, classic and hybrid have one
    shares: tuple[int, ...] = ()  # of each window: its atoms over those of the schedule, in 1/64; empty: 64 for all
    codebook: str = ""  # vq and hybrid: first digits of the digest of the fitted codebook
    atoms: int = 0  # vq and hybrid: atoms of a level
    levels: int = 0  # vq and hybrid: levels of the residual codebook that are coded
    first_level: int = 0  # hybrid: the first of them
    code_model: int = 0  # vq and hybrid: revision of the model of the codes: see ``ddcm.codec.codes.model``

    @property
    def seconds(self) -> float:
        return self.samples / self.mel[0]

    @property
    def layout(self) -> Layout:
        return even_layout(self.samples, int(self.mel[2]))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, L, F) of a window"""
        return CHANNELS, self.layout.latent_frames, BANDS

    @property
    def latent_size(self) -> int:
        """n, the numbers of a window's latent"""
        return CHANNELS * BANDS * self.layout.latent_frames

    @property
    def steps(self) -> ExplicitSchedule:
        """timesteps and atoms of a turbo, classic or hybrid file"""
        assert self.schedule is not None, "a vq file has no schedule"
        return expand(self.schedule)

    def atoms_of(self, window: int) -> tuple[int, ...]:
        """atoms of each coded step of a window of a turbo or classic file; at least one where the schedule has any"""
        share = self.shares[window] if self.shares else EVEN
        return tuple(max(1, (m * share + EVEN // 2) // EVEN) if m else 0 for m in self.steps.atoms)

    def bits_of(self, window: int) -> int:
        """payload bits of a window of a turbo or classic file"""
        atoms = self.atoms_of(window)
        if self.mode == "classic":
            return sum(m * self.log2_atoms + (m - 1) * self.coefficient_bits for m in atoms if m)
        return _count_bits(self.log2_atoms, self.bases, atoms)

    def split(self, count: int) -> tuple[int, ...]:
        """atoms of each basis that a step of ``count`` atoms uses"""
        return split_evenly(count, min(count, self.bases))

    @property
    def offsets(self) -> tuple[int, ...]:
        """the payload's bit at which each window begins, and behind the last one that at which all end"""
        shares, bits = self.shares or (EVEN,) * len(self.layout.starts), self._bits_by_share
        return tuple(accumulate((bits[share] for share in shares), initial=0))

    @property
    def trajectory_bytes(self) -> int:
        """payload bytes of the trajectories of all windows"""
        counts, bits = Counter(self.shares) or {EVEN: len(self.layout.starts)}, self._bits_by_share
        return -(-sum(count * bits[share] for share, count in counts.items()) // 8)

    @property
    def _bits_by_share(self) -> dict[int, int]:
        """payload bits of a window for each share that windows have"""
        if not self.shares:
            return {EVEN: self.bits_of(0)}
        return {share: self.bits_of(self.shares.index(share)) for share in set(self.shares)}


@functools.lru_cache(maxsize=1024)
def _count_bits(log2_atoms: int, bases: int, atoms: tuple[int, ...]) -> int:
    return sum(subset_bits(1 << log2_atoms, split_evenly(m, min(m, bases))) + m for m in atoms if m)


def ceil_log2(count: int) -> int:
    """log2 of the smallest power of two that is not less than ``count``."""
    return (count - 1).bit_length()


def check_bounds(header: Header) -> None:
    """Check the range of each field. Raises UserError: names the first field that is out of bounds."""
    rate, _, hop, bands, *_ = header.mel
    checks = [
        ("mode", header.mode in MODES), ("book", header.book in BOOKS), ("dtype", header.dtype in DTYPES),
        ("backbone", _is_digest(header.backbone)), ("samples", 1 <= header.samples <= MAX_SAMPLES),
        ("mean", -65504 <= header.mean <= 65504), ("gain", -MAX_GAIN <= header.gain <= MAX_GAIN),
        ("mel", 1000 <= rate <= 192000 and 16 <= hop <= 4096 and bands == MEL[3] and len(header.mel) == len(MEL)),
        ("seed", 0 <= header.seed < 1 << 32),
        ("prompt", is_utf8(header.prompt) and len(header.prompt.encode()) <= MAX_PROMPT),
        ("guidance", 0 <= header.guidance <= 100 * 256),
        ("shares", not header.shares or (header.mode != "vq" and len(header.shares) == len(header.layout.starts)
                                         and all(1 <= share <= 255 for share in header.shares))),
        ("cache_interval", header.cache_interval == 1 or (header.mode != "vq" and 1 <= header.cache_interval <= 255)),
    ]  # fmt: skip
    if header.mode in WITH_CODEBOOK:
        checks += [
            ("codebook", _is_digest(header.codebook)), ("atoms", 2 <= header.atoms <= 1 << MAX_LOG2),
            ("levels", 1 <= header.levels <= 64 and 0 <= header.first_level <= 64 - header.levels),
            ("code_model", 0 <= header.code_model <= 255),
        ]  # fmt: skip
    if header.mode == "vq":
        checks += [
            ("schedule", header.schedule is None),
            ("first_level", header.first_level == 0),
            ("bases", header.bases == 1),
        ]
    else:
        bits = header.coefficient_bits
        checks += [
            ("log2_atoms", 1 <= header.log2_atoms <= MAX_LOG2),
            ("bases", header.bases in (BASES if header.mode != "classic" and header.book == "hadamard" else (1,))),
            ("coefficient_bits", 2 <= bits <= 8 if header.mode == "classic" else bits == 0),
            ("schedule", header.schedule is not None and header.schedule.is_valid),
        ]  # fmt: skip
    for name, is_valid in checks:
        if not is_valid:
            raise UserError(f"{name} is out of bounds")


def check_codebook(header: Header) -> None:
    """Raises UserError: a hadamard codebook of another size than the windows, from which its size follows."""
    if header.mode != "vq" and header.book == "hadamard" and header.log2_atoms != ceil_log2(header.latent_size):
        raise UserError("its noise codebook does not fit its windows")


def shorten(digest: str) -> str:
    """What a file keeps of the digest of a backbone, a latent space or a codebook."""
    return digest[:DIGITS]


def _is_digest(text: str) -> bool:
    return len(text) == DIGITS and set(text) <= set("0123456789abcdef")


def validate(header: Header, payload: bytes) -> None:
    """Check that header and payload belong together, before anything is computed from them. The payload bounds the
    number of windows: a claimed length alone makes no work and takes no memory. Raises UserError: they do not belong
    together."""
    least_windows = max(1, -(-(-(-header.samples // int(header.mel[2])) - OVERLAP) // (FRAMES - OVERLAP)))
    if 8 * len(payload) < least_windows:
        raise UserError(f"the .ddcm file claims {header.samples} samples, which its payload cannot hold")
    if header.mode == "vq":
        return
    largest = header.shares.index(max(header.shares)) if header.shares else 0
    if any(m > min(MAX_ATOMS, header.bases << header.log2_atoms) for m in header.atoms_of(largest)):
        raise UserError("the .ddcm file's header is damaged: more atoms in a step than there are")
    offsets, layout = header.offsets, header.layout
    if offsets[-1] * FRAMES < MIN_WINDOW_BITS * layout.size * len(layout.starts):
        raise UserError("the .ddcm file's header is damaged: next to no bits for its length")
    codebook_bytes, windows = len(payload) - header.trajectory_bytes, len(layout.starts)
    if codebook_bytes < windows if header.mode == "hybrid" else codebook_bytes != 0:  # a byte of each is its gain
        raise UserError(f"the .ddcm file claims {header.samples} samples, but its payload has another length")
