"""Codes of a fitted codebook: what each part of the choice and of the entropy coder saves.

    python -m benchmarks.vq_choice --corpus runs/corpus --codebook FOLDER [--page docs/explanation.md]

Training clips are coded with the first 1, 2, ... levels of a residual codebook. A column says how many bits a row needs
less than the plain codec (nearest atoms level by level, and counts) for the same error of the decoded mels: the plain
codec's bits at that error follow from its own levels, by a straight line between two of them in the logarithms.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.curves import rate_at
from benchmarks.marks import fill
from benchmarks.trial import read_training_clips
from ddcm.audio.mel import log_mel, mel_error_db
from ddcm.backbone import load
from ddcm.codec.codes.choice import CodeSearch, choose_codes
from ddcm.codec.codes.vq import Encoder, choose_revision, decode_codes, to_levels
from ddcm.codec.header import BANDS
from ddcm.codec.targets import compute_targets
from ddcm.quantize.pretrained import load_codebook

DEFAULT = CodeSearch()
GREEDY = replace(DEFAULT, rate_weight=0.0, width=1)


@dataclass(frozen=True)
class Row:
    title: str
    how: CodeSearch | None = GREEDY
    """None: the quantizer's own codes"""
    mel_weight: float = 0.0
    is_weighted: bool = False
    """whether errors of the latent count by the posterior's precision"""
    has_context: bool = False


ROWS = (
    Row("context model alone", None, has_context=True),
    Row("beam search alone", replace(DEFAULT, rate_weight=0.0)),
    Row("errors weighted by the posterior alone", is_weighted=True),
    Row("towards the decoded mel alone", replace(DEFAULT, rate_weight=0.0, width=1), 1.0, True),
    Row("context, beam, weighted", replace(DEFAULT, rate_weight=0.0), 0.0, True, True),
    Row("context, beam, weighted, rate", DEFAULT, 0.0, True, True),
    Row("all (the default)", DEFAULT, 1.0, True, True),
    Row("all, half the rate weight", replace(DEFAULT, rate_weight=DEFAULT.rate_weight / 2), 1.0, True, True),
    Row("all, twice the rate weight", replace(DEFAULT, rate_weight=DEFAULT.rate_weight * 2), 1.0, True, True),
    Row("all, without context", DEFAULT, 1.0, True),
)


class Trial:
    def __init__(self, backbone, quantizer, clips: list[torch.Tensor]):
        self.backbone, self.quantizer, self.seconds = backbone, quantizer, sum(map(len, clips)) / 16000
        self.targets = [compute_targets(backbone, [log_mel(clip[None], backbone.mel_spec)]) for clip in clips]

    def measure(self, row: Row, levels: int) -> tuple[float, float]:
        """(kbps of the codes, dB of the decoded mels) of all clips."""
        bits, errors = 0, []
        digest = self.backbone.latent_digest if row.has_context else ""
        for own in self.targets:
            weights = own.weights if row.is_weighted else torch.ones_like(own.weights)
            targets = replace(own, weights=weights, mel_weight=row.mel_weight)
            revision = 0
            if row.how is None:
                codes = to_levels(self.quantizer.encode(own.z))[:levels]
            else:
                codes = choose_codes(self.backbone, targets, self.quantizer, levels,
                                     how=replace(row.how, latent_digest=digest))  # fmt: skip
            if row.how is not None or row.has_context:
                revision = choose_revision(self.quantizer, digest)
            encoder = Encoder(self.quantizer, levels, BANDS, revision, digest)
            encoder.write(codes)
            bits += 8 * len(encoder.getvalue())
            mel = self.backbone.decode(decode_codes(codes, self.quantizer))
            errors.append(mel_error_db(mel, own.mels))
        return bits / 1000 / self.seconds, float(np.mean(errors))


def measure(trial: Trial, columns: list[int], rows=ROWS) -> list[str]:
    """The table in Markdown."""
    plain = [trial.measure(Row("", None), levels) for levels in range(1, trial.quantizer.num_quantizers + 1)]
    head = ("codes chosen by", *(f"{n} level{'s' * (n > 1)}" for n in columns))
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    cells = [f"{plain[n - 1][0]:.2f} kbps, {plain[n - 1][1]:.2f} dB" for n in columns]
    lines.append(f"| {' | '.join(('the plain codec', *cells))} |")
    for row in tqdm(rows, desc="rows"):
        cells = []
        for levels in columns:
            kbps, error = trial.measure(row, levels)
            cells.append(f"{100 * (1 - kbps / rate_at(plain, error)):.0f} % ({kbps:.2f} kbps, {error:.2f} dB)")
        lines.append(f"| {' | '.join((row.title, *cells))} |")
        print(lines[-1], flush=True)
    return [*lines, "", f"{len(trial.targets)} training clips; kbps are of the codes, without the header."]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--codebook", default="checkpoints/codebooks/pocket-residual")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.56)
    parser.add_argument("--page", type=Path, help="a page to put the table into, such as docs/explanation.md")
    args = parser.parse_args()
    with torch.no_grad():
        clips = read_training_clips(args.corpus, args.seconds, args.clips)
        trial = Trial(load(args.backbone), load_codebook(args.codebook).quantizer, clips)
        text = "\n".join(measure(trial, args.levels))
    print(text)
    if args.page:
        fill(args.page, "benchmarks.vq_choice", text)
