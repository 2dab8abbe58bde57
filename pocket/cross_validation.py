"""Cross-validate the judge's classifier: how well can the kind of an unseen file be told at all?

    python -m pocket.cross_validation --card checkpoints/pocket/README.md

Training files are split into folds by a hash of their path. For each fold a classifier (``pocket.classifier``) is
trained on the files of the others and names the kinds of this one's clips. That measures how far kinds can be told by a
network of this size, on many more files than there are for validation. Prints a table in Markdown: rows are the true
kinds, columns the named ones. ``--card FILE`` puts it into a model card.
"""

import argparse
import copy
import dataclasses
import hashlib
import tempfile
from collections import Counter
from pathlib import Path

import torch

from benchmarks.marks import fill
from pocket.classifier import name_clip, real_clips, train_classifier
from pocket.corpus import KINDS, Corpus


def fold_of(path: str, folds: int) -> int:
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[-4:], "big") % folds


def held_out(corpus: Corpus, fold: int, folds: int) -> Corpus:
    """The training clips alone, those of one fold for validation."""
    part = copy.copy(corpus)
    part.clips = [
        dataclasses.replace(clip, split="val" if fold_of(clip.path, folds) == fold else "train")
        for clip in corpus.of("train")
    ]
    return part


def cross_validate(corpus: Corpus, folds: int, steps: int) -> Counter[tuple[str, str]]:
    """(kind, kind that was named) -> clips."""
    counts: Counter[tuple[str, str]] = Counter()
    for fold in range(folds):
        part = held_out(corpus, fold, folds)
        with tempfile.TemporaryDirectory() as folder:
            classifier = train_classifier(part, Path(folder) / "classifier.pt", steps)
        for kind, clips in real_clips(part).items():
            counts.update((kind, name_clip(classifier, clip)) for clip in clips)
    return counts


def table(counts: Counter[tuple[str, str]]) -> str:
    lines = [f"| | {' | '.join(KINDS)} | clips | right |", "|---|" + "---|" * (len(KINDS) + 2)]
    shares = []
    for kind in KINDS:
        row = [counts[kind, name] for name in KINDS]
        shares.append(counts[kind, kind] / sum(row))
        lines.append(f"| {kind} | {' | '.join(map(str, row))} | {sum(row)} | {shares[-1]:.2f} |")
    return "\n".join([*lines, "", f"Right, kinds weighed alike: {sum(shares) / len(shares):.3f}"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--card", type=Path, help="a model card to put the table into")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    text = table(cross_validate(Corpus(args.corpus), args.folds, args.steps))
    print(text)
    if args.card:
        fill(args.card, "pocket.cross_validation", text)
