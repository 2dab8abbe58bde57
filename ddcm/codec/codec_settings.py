"""Settings of the codec: the flags of ``ddcm compress`` and the keywords of ``DDCMPipeline.compress``."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ddcm.codec.step_schedule import ExplicitSchedule, ParametricSchedule
from ddcm.errors import UserError

Mode = Literal["turbo", "classic", "vq", "hybrid"]
WITH_CODEBOOK = ("vq", "hybrid")  # modes that code with a fitted codebook
Book = Literal["hadamard", "gaussian"]
BASES = tuple(1 << k for k in range(8))  # numbers of bases that a hadamard codebook can have
Quality = Literal["low", "medium", "high", "best"]
QUALITIES: dict[Quality, float] = {"low": 0.5, "medium": 1.0, "high": 2.0, "best": 4.0}  # kbps


@dataclass(frozen=True)
class CodecSettings:
    """How a recording is compressed. A rate counts all bytes of the file, the header too. Raises UserError: an unknown
    choice, a number out of range, or settings that exclude each other."""

    kbps: float | None = None
    """bytes on disk x 8 / seconds / 1000; default 1. Not for vq, whose rate follows from the codebook"""
    quality: Quality | None = None
    """a named rate instead: low 0.5, medium 1, high 2, best 4 kbps"""
    db: float | None = None
    """a quality instead: the mean absolute error of the decoded log-mel, in dB; a few trials find the rate for it"""
    mode: Mode = "turbo"
    """turbo: the best atoms with signs; classic: one atom a step (with steps, several by matching pursuit); vq: the
    codes of a fitted codebook; hybrid: turbo, then the codes of a residual codebook for what it leaves (from 5 kbps;
    below, the file is one of turbo)"""
    book: Book = "hadamard"
    """the noise codebook"""
    bases: int = 32
    """turbo, hybrid: over how many bases of a hadamard codebook the atoms of a step are spread at most, a power of two
    up to 128; 1: the largest of one basis, as in Turbo-DDCM. More are nearer at the same rate and slower to choose"""
    steps: int | None = None
    """UNet calls for each window of 10.24 s, and as many to decode it; default: as many as the table of
    schedules has at most"""
    noise_atoms: int = 16384
    """atoms of a gaussian noise codebook, a power of two; a hadamard one has as many as the window's latent has
    numbers"""
    coefficient_bits: int = 3
    """classic: bits of the coefficient of each atom after the first of a step, in [2, 8]"""
    levels: int | None = None
    """vq, hybrid: how many levels of a residual codebook are coded; default: all for vq, what is best at the rate for
    hybrid"""
    rate_weight: float = 1.0
    """vq, hybrid: how much a bit counts against the error when codes are chosen, in [0, 100]; 0: not at all"""
    seed: int = 0
    """of the noise codebooks, in [0, 2^32)"""
    prompt: str = ""
    """what the recording is: side information, kept in the file; the decoder then needs the text encoders too"""
    guidance_scale: float = 1.0
    """of classifier-free guidance under the prompt, in [0, 100]; 1 is one UNet call a step, anything else two"""
    cache_interval: int = 1
    """compute the UNet's deep layers in the first ten steps and then in every N-th; the decoder does the same"""
    allocate: bool = True
    """turbo: windows that are harder to guess get more of the file's bits"""
    mel_weight: float = 2.0
    """how much the noise is chosen for the decoded mel, beside the latent (1: alike); 0 saves a pass through the VAE's
    decoder and back in the encoder's steps. vq: unless it is 0, codes are chosen for the decoded mel too"""
    mel_share: float = 0.65
    """share of the encoder's steps, the last ones, in which the mel takes part; less is faster, 1 is all"""
    mel_interval: int = 2
    """compute the mel's part in every N-th of these steps, and keep it between; 1 is slower and 0.02 dB nearer"""
    schedule: ParametricSchedule | ExplicitSchedule | None = None
    """replaces the schedule that is solved from the rate"""
    schedules: Path | None = None
    """a table of benchmarks/schedules.py for this backbone, instead of the shipped one"""
    verify: bool = False
    """decode the finished file and compare its latents with the encoder's, bit for bit"""

    def __post_init__(self):
        for name, known in {"mode": get_args(Mode), "book": get_args(Book), "quality": tuple(QUALITIES)}.items():
            value = getattr(self, name)
            if value not in known and not (name == "quality" and value is None):
                raise UserError(f"{name} {value!r} is not known; use one of: {', '.join(known)}")
        asked = [name for name in ("kbps", "quality", "db") if getattr(self, name) is not None]
        atoms = self.noise_atoms
        checks = (
            (len(asked) < 2, f"{' and '.join(asked)} are names for the same choice; give one"),
            (self.kbps is None or (math.isfinite(self.kbps) and self.kbps > 0),
             f"kbps {self.kbps} is not a positive number; the shipped table is for 0.25 to 4"),
            (self.mode != "vq" or not asked, f"the rate of vq is its codebook's; leave out {' and '.join(asked)}"),
            (self.db is None or (math.isfinite(self.db) and self.db > 0), f"db {self.db} is not a positive number"),
            (self.db is None or self.schedule is None, "db finds the schedule; give db or schedule"),
            (self.levels is None or self.mode in WITH_CODEBOOK,
             f"levels are a codebook's, for modes vq and hybrid; mode {self.mode} has kbps"),
            (0 <= self.rate_weight <= 100, f"rate_weight {self.rate_weight} is outside [0, 100]"),
            (2 <= atoms <= 1 << 20 and not atoms & (atoms - 1),
             f"noise_atoms {atoms} is not a power of two up to {1 << 20}"),
            (self.bases in BASES, f"bases {self.bases} is not a power of two up to {BASES[-1]}"),
            (2 <= self.coefficient_bits <= 8,
             f"coefficient_bits {self.coefficient_bits} is outside [2, 8]: with 1, further atoms are mute"),
            (0 <= self.seed < 1 << 32, f"seed {self.seed} is outside [0, {(1 << 32) - 1}]"),
            (1 <= self.cache_interval <= 255, f"cache_interval {self.cache_interval} is outside [1, 255]"),
            (0 <= self.mel_weight <= 100, f"mel_weight {self.mel_weight} is outside [0, 100]"),
            (0 <= self.mel_share <= 1, f"mel_share {self.mel_share} is outside [0, 1]"),
            (1 <= self.mel_interval <= 1000, f"mel_interval {self.mel_interval} is outside [1, 1000]"),
            (0 <= self.guidance_scale <= 100, f"guidance_scale {self.guidance_scale} is outside [0, 100]"),
        )  # fmt: skip
        for is_valid, message in checks:
            if not is_valid:
                raise UserError(message)

    @property
    def rate_kbps(self) -> float:
        return self.kbps or QUALITIES[self.quality or "medium"]
