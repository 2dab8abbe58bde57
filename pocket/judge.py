"""Judge what a backbone generates and transforms: does a prompt come out as the kind that it names?

    python -m pocket.judge --backbone checkpoints/pocket

A small classifier (``pocket.classifier``), trained on the mels of the training clips and kept below ``--runs``, names
the kinds of

1. real validation clips of both pools: how far the judge itself can be trusted. The pieces of a long clip vote
   together, or one drone of a minute would count as twelve sounds; the row of pieces counts them one by one;
2. sounds generated from captions of validation clips, guided: the share whose kind is the caption's. Beside it the
   Frechet distance between generated and real clips, every kind of which counts the same, of the mean and deviation of
   each mel band;
3. validation clips transformed at strength 0.5 under a caption of another kind: the share that is named as the new
   kind, and how well the frame energies still follow the input (Pearson).

Prints a table in Markdown; ``--card FILE`` puts it into a model card.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import sqrtm
from tqdm import tqdm

from benchmarks.marks import cell, fill
from ddcm.audio.mel import log_mel
from ddcm.errors import UserError
from ddcm.pipeline import DDCMPipeline
from pocket.classifier import SAMPLES, Classifier, name_clip, name_kinds, real_clips, train_classifier
from pocket.corpus import KINDS, SAMPLE_RATE, Corpus


def captions(corpus: Corpus, kind: str, count: int) -> list[str]:
    """Different captions of the validation clips of a kind, spread over them, repeated where there are too few."""
    different = list(dict.fromkeys(clip.caption for clip in corpus.of("val", kind)))
    spread = different[:: max(1, len(different) // count)]
    return [spread[index % len(spread)] for index in range(count)]


def generated(pipe: DDCMPipeline, prompts: list[str], steps: int, guidance: float) -> torch.Tensor:
    """(n, SAMPLES), number i from the noise of seed i."""
    settings = {"recipe": "full-diffusion", "solver": "dpm++", "steps": steps, "guidance_scale": guidance, "n": 1}
    clips = (
        pipe.generate(prompt, SAMPLES / SAMPLE_RATE, seed=seed, **settings).audio
        for seed, prompt in enumerate(tqdm(prompts, desc="generating"))
    )
    return torch.stack(list(clips))


def statistics(audio: torch.Tensor) -> np.ndarray:
    """(n, S) -> (n, 128): mean and standard deviation over time of every band of the levelled log-mel."""
    levelled = audio / audio.abs().amax(dim=1, keepdim=True).clamp(min=1e-6) * 0.5
    mel = log_mel(levelled)[:, 0]
    return torch.cat([mel.mean(dim=1), mel.std(dim=1)], dim=1).double().numpy()


Moments = tuple[np.ndarray, np.ndarray]


def moments(rows: np.ndarray, weights: np.ndarray | None = None) -> Moments:
    """Rows (n, d), each of a weight -> their mean (d,) and covariance (d, d)."""
    return np.average(rows, axis=0, weights=weights), np.cov(rows, rowvar=False, aweights=weights)


def frechet(a: Moments, b: Moments) -> float:
    """Frechet distance of the Gaussians with these moments (Dowson and Landau 1982)."""
    (mean_a, first), (mean_b, second) = ((mean, cov + 1e-6 * np.eye(len(mean))) for mean, cov in (a, b))
    gap = mean_a - mean_b
    return float(gap @ gap + np.trace(first + second - 2 * np.real(sqrtm(first @ second))))


def energy_corr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Pearson correlation of the frame energies (mean log-mel of each frame) of two signals (S,)."""
    rows = [log_mel(x[None])[0, 0].mean(dim=1).double().numpy() for x in (a, b)]
    return float(np.corrcoef(*rows)[0, 1]) if all(row.std() > 0 for row in rows) else 0.0


def take_in_turn(clips: list[torch.Tensor]) -> torch.Tensor:
    """Pieces (n, S) of each clip -> the first piece of every clip, then the second ones, and so on."""
    longest = max(map(len, clips))
    return torch.stack([clip[i] for i in range(longest) for clip in clips if i < len(clip)])


def share(names: list[str], wanted: list[str]) -> float:
    return float(np.mean([a == b for a, b in zip(names, wanted, strict=True)]))


def rate_judge(classifier: Classifier, pools: dict[str, dict[str, list[torch.Tensor]]], kind: str) -> dict[str, float]:
    """The shares of a kind's real clips, and of their pieces, that are named right, by pool."""
    shares = {}
    for pool, clips in pools.items():
        if own := clips.get(kind):
            pieces = torch.cat(own)
            shares[f"real clips of the {pool} pool named right"] = share(
                [name_clip(classifier, clip) for clip in own], [kind] * len(own)
            )
            shares[f"their pieces of {SAMPLES / SAMPLE_RATE:g} s, {pool} pool"] = share(
                name_kinds(classifier, pieces), [kind] * len(pieces)
            )
    return shares


def judge(args: argparse.Namespace) -> str:
    if args.threads:
        torch.set_num_threads(args.threads)
    corpus = Corpus(args.corpus)
    classifier = train_classifier(corpus, args.runs / "classifier.pt")
    pipe = DDCMPipeline.from_pretrained(args.backbone, device=args.device)
    pools = {"first": real_clips(corpus), "wide": real_clips(corpus, 128, "wide")}
    each = args.samples // len(KINDS)
    rows: dict[str, dict[str, float]] = {}
    every: list[torch.Tensor] = []
    for kind in KINDS:
        made = generated(pipe, captions(corpus, kind, each), args.steps, args.guidance_scale)
        every.append(made)
        others = [KINDS[(KINDS.index(kind) + 1 + i % 3) % 4] for i in range(args.transforms)]
        pieces = take_in_turn(pools["first"][kind])
        inputs = [pieces[i * len(pieces) // args.transforms] for i in range(args.transforms)]
        changed = [
            pipe.transform(x, SAMPLE_RATE, prompt=captions(corpus, other, 8)[i % 8], strength=0.5, quantizer="none",
                           guidance_scale=args.transform_guidance, seed=i).audio
            for i, (x, other) in enumerate(zip(tqdm(inputs, desc="transforming"), others, strict=True))
        ]  # fmt: skip
        rows[kind] = {
            **rate_judge(classifier, pools, kind),
            "generated, named as asked": share(name_kinds(classifier, made), [kind] * each),
            "transformed at 0.5, named as the new kind": share(name_kinds(classifier, torch.stack(changed)), others),
            "their energy follows the input (Pearson)": float(
                np.mean([energy_corr(a, b) for a, b in zip(inputs, changed, strict=True)])
            ),
        }
    lines = ["| | " + " | ".join(rows) + " | all |", "|---|" + "---|" * (len(rows) + 1)]
    for title in max(rows.values(), key=len):
        values = [row.get(title, math.nan) for row in rows.values()]
        lines.append(f"| {title} | " + " | ".join(cell(v, 2) for v in [*values, float(np.nanmean(values))]) + " |")
    both = [torch.cat([take_in_turn(pool[kind]) for pool in pools.values() if kind in pool]) for kind in KINDS]
    of_real = np.concatenate([statistics(clips) for clips in both])
    weights = np.concatenate([np.full(len(clips), 1 / len(clips)) for clips in both])  # as many of each kind
    distance = frechet(moments(statistics(torch.cat(every))), moments(of_real, weights))
    halves = frechet(*(moments(of_real[i::2], weights[i::2]) for i in range(2)))
    sentence = (
        f"Frechet distance of mel statistics, {each * len(KINDS)} generated to {len(of_real)} real pieces of both "
        f"pools: {distance:.1f} (one half of the real clips to the other: {halves:.1f}). "
        f"Guidance {args.guidance_scale:g}, of transforms "
        f"{args.transform_guidance:g}; {args.steps} steps, {args.transforms} transforms of each kind."
    )
    lines += ["", sentence]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--runs", type=Path, default=Path("runs/judge"), help="where the classifier is kept")
    parser.add_argument("--samples", type=int, default=300, help="generated, a quarter of each kind")
    parser.add_argument("--transforms", type=int, default=24, help="of each kind")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance_scale", type=float, default=3.5, help="of what is generated")
    parser.add_argument("--transform_guidance", type=float, default=5.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--card", type=Path, help="a model card to put the table into")
    args = parser.parse_args()
    try:
        text = judge(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(text)
    if args.card:
        fill(args.card, "pocket.judge", text)
