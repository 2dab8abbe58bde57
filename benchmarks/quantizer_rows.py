"""Measure a quantizer on validation clips: the rows of docs/quantizers.md."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ddcm.audio.mel import log_mel, mel_error_db
from ddcm.backbone import Backbone
from ddcm.fit.denoising import fixed_errors
from ddcm.quantize import Quantizer
from pocket.batches import validation
from pocket.corpus import Corpus

SECONDS = 2.56  # of each validation clip, at most
DRAWS = 8  # of timestep and noise for each clip
CELLS_PER_S = 400

Apply = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]
"""z (1, 8, L, 16) -> (quantised z, codes (levels, cells) or None)"""


@dataclass
class Clip:
    """An encoded validation recording."""

    kind: str
    mel: torch.Tensor  # (1, 1, T, 64)
    z: torch.Tensor  # (1, 8, T / 4, 16)


@dataclass
class Row:
    """Errors and codes of a quantizer over the validation clips."""

    error: float  # mean squared, per number of z
    mel_db: float
    codes: tuple[float, float, float] | None = None  # usage, perplexity, bits a cell

    def __str__(self) -> str:
        row = f"{self.error:.6f} | {self.mel_db:.3f}"
        if self.codes is None:
            return f"{row} | | | "
        usage, perplexity, bits_per_cell = self.codes
        return f"{row} | {usage:.3f} | {perplexity:.0f} | {bits_per_cell * CELLS_PER_S / 1000:.2f}"


def load_clips(corpus: Path, backbone: Backbone, per_kind: int) -> list[Clip]:
    """The validation clips of ``pocket.evaluate``, as many of each kind."""
    data = []
    for clip, audio in tqdm(validation(Corpus(corpus), SECONDS, per_kind), desc="encoding"):
        mel = log_mel(torch.from_numpy(audio)[None], backbone.mel_spec)
        data.append(Clip(clip.kind, mel, backbone.encode(mel)))
    return data


def keep_levels(quantizer: Quantizer, levels: int) -> Apply:
    """Quantise by the codes of the first ``levels`` levels."""

    def encode_and_decode(z):
        codes = quantizer.encode(z)
        codes = codes[:, :levels] if quantizer.num_quantizers > 1 else codes
        return quantizer.decode(codes), codes.reshape(levels, -1)

    return encode_and_decode


def measure_codes(codes: torch.Tensor, size: int) -> tuple[float, float, float]:
    """Codes (levels, N) -> (usage, perplexity, bits a cell after entropy coding), over levels as CodeTally has them."""
    counts = torch.stack([torch.bincount(row, minlength=size) for row in codes]).double()
    entropy = torch.special.entr(counts / counts.sum(dim=1, keepdim=True)).sum(dim=1)
    return float((counts > 0).double().mean()), float(entropy.mean().exp()), float(entropy.sum() / np.log(2))


@torch.no_grad()
def measure(apply: Apply, backbone: Backbone, data: list[Clip], size: int) -> Row:
    errors, numbers, differences, codes = 0.0, 0, [], []
    for clip in data:
        z, clip_codes = apply(clip.z)
        errors, numbers = errors + float((z - clip.z).double().square().sum()), numbers + z.numel()
        differences.append(mel_error_db(backbone.decode(z), clip.mel))
        if clip_codes is not None:
            codes.append(clip_codes)
    return Row(
        errors / numbers, float(np.mean(differences)), measure_codes(torch.cat(codes, dim=1), size) if codes else None
    )


@torch.no_grad()
def denoising_errors(apply: Apply, backbone: Backbone, data: list[Clip]) -> np.ndarray:
    """Of the frozen UNet on quantised validation latents, for each clip; the same for whoever is asked but for z."""
    quantised = [apply(clip.z)[0] for clip in data]
    errors = [[float(fixed_errors(backbone, z, [DRAWS * i + draw])) for draw in range(DRAWS)]
              for i, z in enumerate(quantised)]  # fmt: skip
    return np.mean(errors, axis=1)


def difference(name: str, errors: np.ndarray, other: str, than: np.ndarray) -> str:
    """A sentence on paired errors of clips: mean difference, its standard error, and how many clips agree."""
    gaps = errors - than
    share, error = gaps.mean() / than.mean(), gaps.std(ddof=1) / len(gaps) ** 0.5
    return (
        f"`{name}` against `{other}`, clip by clip: {gaps.mean():+.5f} (standard error {error:.5f}; {share:+.1%}), "
        f"lower on {(gaps < 0).sum()} of {len(gaps)} clips."
    )
