"""Fit every quantizer on one collection and write the table of docs/quantizers.md.

    python -m pocket.corpus --flac POOL --each 400 --longest 10.24
    python -m benchmarks.quantizers --root POOL/manifest.csv

Every fit uses the shipped overlays and the same steps, batches and seed. Fits are written below ``--runs``; a fit whose
codebook exists is not run again. A residual codebook is measured at its first 1, 2, 4 and 8 levels. Each level is
fitted on the residual of the levels before it, so the first levels are a shorter codebook.

The diffusion term is measured by two further fits, with and without it, from the same codebook with the same batches
and steps. The UNet gets the same timesteps and noise for both, clip by clip. The clips are the validation clips of
``pocket.evaluate``, the same number of each kind.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.marks import fill
from benchmarks.quantizer_rows import (
    SECONDS,
    Apply,
    Clip,
    Row,
    denoising_errors,
    difference,
    keep_levels,
    load_clips,
    measure,
)
from ddcm.backbone import Backbone, load
from ddcm.fit.cli import main as train
from ddcm.quantize import Quantizer
from ddcm.quantize.pretrained import load_codebook

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "quantizers.md"
LEVELS = (1, 2, 4, 8)
SECOND = ["--model.learning_rate=0.0005", "--trainer.max_steps={half}"]  # the rate of diffusion.yaml
FITS = {  # name -> overlay of fit.yaml, and options; annealing takes three quarters of the steps
    "hard": ("fit", []),
    "hard, EMA": ("ema", []),
    "soft, temperature 1": ("soft", ["--model.quantizer.final_temperature=null"]),
    "soft, annealed": ("soft", ["--model.quantizer.anneal_steps={anneal}"]),
    "projected to 6": ("projected", []),
    "residual, hard": ("residual", []),
    # Half the steps: a step with the UNet takes as long as fifty without it.
    "hard, fitted further": ("fit", ["--model.init_from={hard}", *SECOND]),
    "hard, fitted further with the diffusion term": ("diffusion", ["--model.init_from={hard}", *SECOND]),
    # A quarter of the steps: eight soft levels take eight times as long as one.
    "residual, soft annealed": (
        "residual_soft",
        ["--model.quantizer.level.init_args.anneal_steps={short_anneal}", "--trainer.max_steps={short}"],
    ),
}
WITHOUT, WITH = "hard, fitted further", "hard, fitted further with the diffusion term"


def compare_denoising(fitted: dict[str, Quantizer], backbone: Backbone, data: list[Clip]) -> list[str]:
    """The table of the diffusion term, and sentences about its differences."""
    methods: dict[str, Apply] = {"nothing quantised": lambda z: (z, None)}
    methods |= {name: keep_levels(fitted[name], 1) for name in ("hard", WITHOUT, WITH)}
    errors = {name: denoising_errors(method, backbone, data) for name, method in methods.items()}
    of_kind = {kind: np.array([clip.kind == kind for clip in data]) for kind in dict.fromkeys(c.kind for c in data)}
    of_kind["all"] = np.ones(len(data), dtype=bool)
    lines = ["The UNet's denoising error on quantised validation latents:", ""]
    lines += ["| | " + " | ".join(f"{kind} ({chosen.sum()})" for kind, chosen in of_kind.items()) + " |"]
    lines += ["|---" * (len(of_kind) + 1) + "|"]
    for name, values in errors.items():
        lines.append(f"| {name} | " + " | ".join(f"{values[chosen].mean():.5f}" for chosen in of_kind.values()) + " |")
    lines.append("")
    for than in (WITHOUT, "hard"):
        for kind, chosen in of_kind.items():
            if kind == "all" or than == WITHOUT:
                lines.append(f"- {kind}: {difference(WITH, errors[WITH][chosen], than, errors[than][chosen])}")
    clean, without, with_term = (errors[name].mean() for name in ("nothing quantised", WITHOUT, WITH))
    if without > clean:
        values = f"Of what quantisation costs, the term takes {(without - with_term) / (without - clean):.1%} back."
    else:
        values = "Quantised latents are easier to denoise than what they were made of: there is no cost to take back."
    return [*lines, "", values]


def describe_gap(rows: dict[tuple[str, int], Row], ceiling: Row, name: str) -> str:
    """A sentence: how much of the gap between one level and the ceiling the most levels close."""
    one, most = rows[name, 1], rows[name, LEVELS[-1]]
    dB = (one.mel_db - most.mel_db) / (one.mel_db - ceiling.mel_db)
    return (
        f"`{name}` with {LEVELS[-1]} levels closes {dB:.1%} of the gap in dB between one level and the ceiling, "
        f"{1 - most.error / one.error:.2%} of that in validation error."
    )


def build_table(args: argparse.Namespace) -> str:
    backbone = load(args.backbone)
    fitted = {name: fit(name, overlay, options, backbone, args) for name, (overlay, options) in FITS.items()}
    data = load_clips(args.corpus, backbone, args.per_kind)
    ceiling, rows = measure(lambda z: (z, None), backbone, data, 1), {}
    lines = [
        "| quantizer | levels | validation error | mel error (dB) | usage | perplexity | kbps |",
        "|---|---|---|---|---|---|---|",
        f"| none: the ceiling | | {ceiling} |",
    ]
    for name, quantizer in fitted.items():
        if name == "soft, temperature 1":
            mixed = measure(lambda z, q=quantizer: (q(z).z, None), backbone, data, 1)
            lines.append(f"| {name}: mixtures | 1 | {mixed} |")
        for levels in LEVELS if quantizer.num_quantizers > 1 else (1,):
            rows[name, levels] = measure(keep_levels(quantizer, levels), backbone, data, quantizer.codebook_size)
            lines.append(f"| {name} | {levels} | {rows[name, levels]} |")
    lines += [
        "",
        *(describe_gap(rows, ceiling, name) for name, quantizer in fitted.items() if quantizer.num_quantizers > 1),
    ]
    lines += ["", *compare_denoising(fitted, backbone, data)]
    lines += [
        "",
        f"{len(data)} validation clips of at most {SECONDS:g} s; {args.steps} steps a fit (second fits "
        f"half, soft residual a quarter of them); {args.backbone}.",
    ]
    return "\n".join(lines)


def fit(name: str, overlay: str, options: list[str], backbone: Backbone, args: argparse.Namespace) -> Quantizer:
    folder = args.runs / name.replace(", ", "_").replace(" ", "_")
    short = max(1, args.steps // 4)
    values = {
        "hard": args.runs / "hard" / "codebook",
        "anneal": args.steps * 3 // 4,
        "half": max(1, args.steps // 2),
        "short": short,
        "short_anneal": max(1, short * 3 // 4),
    }
    if not (folder / "codebook").is_dir():
        train(
            ["fit", f"-c={ROOT}/configs/fit.yaml", f"-c={ROOT}/configs/{overlay}.yaml", f"--data.root={args.root}",
             f"--model.backbone={args.backbone}", f"--trainer.default_root_dir={folder}", "--model.listen_every=0",
             f"--trainer.max_steps={args.steps}", f"--trainer.val_check_interval={short}",
             *([f"--data.cache_dir={args.cache_dir}"] if args.cache_dir else []),
             *(option.format(**values) for option in options)]
        )  # fmt: skip
    codebook = load_codebook(folder / "codebook")
    codebook.check(backbone)  # a codebook of an earlier run may belong to other weights
    return codebook.quantizer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of audio or manifest, as --data.root of train.py")
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--cache_dir", help="of encoded latents")
    parser.add_argument("--runs", type=Path, default=Path("runs/quantizers"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"), help="whose validation clips are measured")
    parser.add_argument("--per_kind", type=int, default=16, help="clips of each kind")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    text = build_table(arguments)
    print(text)
    fill(arguments.page, "benchmarks.quantizers", text)
