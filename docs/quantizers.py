"""Fit every quantizer on one collection and write the table of docs/quantizers.md.

    python docs/quantizers.py --root POOL/manifest.csv

Runs ``train.py fit`` with the shipped overlays, all with the same steps, batches and seed, below ``--runs`` (a fit
whose codebook is there is not run again). A residual codebook is measured at its first 1, 2, 4 and 8 levels: levels
learn greedily, each from what the ones before it leave, so its prefixes are the shorter codebooks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ddcm.audio import level, read_audio
from ddcm.backbone import Backbone, load
from ddcm.fit.cli import main as train
from ddcm.fit.diffusion import diffusion_loss
from ddcm.fit.manifest import read_manifest, split_entries
from ddcm.mel import LN_TO_DB, log_mel
from ddcm.quantize import Quantizer
from ddcm.quantize.checkpoint import load_codebook

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "quantizers.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
LEVELS = (1, 2, 4, 8)
SAMPLES = 81920  # 5.12 s of each validation file
FITS = {  # name -> overlay of fit.yaml, and options; annealing takes three quarters of the steps
    "hard": ("fit", []),
    "hard, EMA": ("ema", []),
    "soft, temperature 1": ("soft", ["--model.quantizer.final_temperature=null"]),
    "soft, annealed": ("soft", ["--model.quantizer.anneal_steps={anneal}"]),
    "projected to 6": ("projected", []),
    "residual, hard": ("residual", []),
    # The pair that shows what the diffusion term does: the same second fit with and without it.
    "hard, fitted further": ("diffusion", ["--model.init_from={hard}", "--model.diffusion_weight=0"]),
    "hard, fitted further with the diffusion term": ("diffusion", ["--model.init_from={hard}"]),
    # Eight soft levels cost eight times as much as one: a quarter of the steps.
    "residual, soft annealed": (
        "residual_soft",
        ["--model.quantizer.level.init_args.anneal_steps={short_anneal}", "--trainer.max_steps={short}"],
    ),
}
DENOISED = ("hard, fitted further", "hard, fitted further with the diffusion term")


Apply = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]
"""z (1, 8, L, 16) -> (quantised z, codes (levels, cells) or None)"""


@dataclass
class Clip:
    """A validation recording, encoded."""

    mel: torch.Tensor  # (1, 1, T, 64)
    z: torch.Tensor  # (1, 8, T / 4, 16)


def clips(root: str, backbone: Backbone, limit: int) -> list[Clip]:
    entries = read_manifest(root)
    chosen = split_entries(entries)["val"]
    chosen = chosen[:: max(1, len(chosen) // limit)][:limit]  # spread over the collection
    made = []
    for entry in tqdm([entries[index] for index in chosen], desc="encoding"):
        audio, _ = level(read_audio(entry.path, backbone.mel_spec.sample_rate)[:SAMPLES])
        audio = torch.nn.functional.pad(audio, (0, -len(audio) % 640))
        mel = log_mel(audio[None], backbone.mel_spec)
        made.append(Clip(mel, backbone.encode(mel)))
    return made


def prefix(quantizer: Quantizer, levels: int) -> Apply:
    """By the codes of the first ``levels`` levels."""

    def by_codes(z):
        codes = quantizer.encode(z)
        codes = codes[:, :levels] if quantizer.levels > 1 else codes
        return quantizer.decode(codes), codes.reshape(levels, -1)

    return by_codes


def bits(codes: torch.Tensor, size: int) -> tuple[float, float, float]:
    """Codes (levels, N) -> (usage, perplexity, bits a cell after entropy coding), over levels as CodeTally has them."""
    counts = torch.stack([torch.bincount(row, minlength=size) for row in codes]).double()
    entropy = torch.special.entr(counts / counts.sum(dim=1, keepdim=True)).sum(dim=1)
    return float((counts > 0).double().mean()), float(entropy.mean().exp()), float(entropy.sum() / np.log(2))


@torch.no_grad()
def measure(apply: Apply, backbone: Backbone, data: list[Clip], size: int) -> str:
    """Cells of a row of the table: error, dB, usage, perplexity, kbps."""
    errors, numbers, differences, codes = 0.0, 0, [], []
    for clip in data:
        z, found = apply(clip.z)
        errors, numbers = errors + float((z - clip.z).double().square().sum()), numbers + z.numel()
        differences.append(float((backbone.decode(z) - clip.mel).abs().mean()) * LN_TO_DB)
        if found is not None:
            codes.append(found)
    row = f"{errors / numbers:.6f} | {np.mean(differences):.3f}"
    if not codes:
        return f"{row} | | | "
    usage, perplexity, bits_per_cell = bits(torch.cat(codes, dim=1), size)
    return f"{row} | {usage:.3f} | {perplexity:.0f} | {bits_per_cell * 0.4:.2f}"  # 400 cells a second


@torch.no_grad()
def denoising_error(apply: Apply, backbone: Backbone, data: list[Clip]) -> float:
    """Of the frozen UNet on quantised validation latents; the same timesteps and noise for whoever is asked."""
    return float(np.mean([float(diffusion_loss(backbone, apply(c.z)[0], seed)) for seed, c in enumerate(data * 4)]))


def table(args: argparse.Namespace) -> str:
    fitted = {name: fit(name, overlay, options, args) for name, (overlay, options) in FITS.items()}
    backbone = load(args.backbone)
    data = clips(args.root, backbone, args.clips)
    lines = [
        "| quantizer | levels | validation error | mel error (dB) | usage | perplexity | kbps |",
        "|---|---|---|---|---|---|---|",
        f"| none: the ceiling | | {measure(lambda z: (z, None), backbone, data, 1)} |",
    ]
    for name, quantizer in fitted.items():
        if name == "soft, temperature 1":
            mixed = measure(lambda z, q=quantizer: (q(z).z, None), backbone, data, 1)
            lines.append(f"| {name}: mixtures | 1 | {mixed} |")
        for levels in LEVELS if quantizer.levels > 1 else (1,):
            row = measure(prefix(quantizer, levels), backbone, data, quantizer.codebook_size)
            lines.append(f"| {name} | {levels} | {row} |")
    lines += ["", "| | UNet's denoising error on quantised validation latents |", "|---|---|"]
    lines.append(f"| nothing quantised | {denoising_error(lambda z: (z, None), backbone, data):.5f} |")
    for name in DENOISED:
        lines.append(f"| {name} | {denoising_error(prefix(fitted[name], 1), backbone, data):.5f} |")
    lines += [
        "",
        f"{len(data)} validation files, at most 5.12 s of each; {args.steps} steps a fit (soft residual: a quarter of "
        f"them); {args.backbone}.",
    ]
    return "\n".join(lines)


def fit(name: str, overlay: str, options: list[str], args: argparse.Namespace) -> Quantizer:
    folder = args.runs / name.replace(", ", "_").replace(" ", "_")
    short = max(1, args.steps // 4)
    said = {
        "hard": args.runs / "hard" / "codebook",
        "anneal": args.steps * 3 // 4,
        "short": short,
        "short_anneal": max(1, short * 3 // 4),
    }
    if not (folder / "codebook").is_dir():
        train(
            ["fit", f"-c={ROOT}/configs/fit.yaml", f"-c={ROOT}/configs/{overlay}.yaml", f"--data.root={args.root}",
             f"--model.backbone={args.backbone}", f"--trainer.default_root_dir={folder}", "--model.listen_every=0",
             f"--trainer.max_steps={args.steps}", f"--trainer.val_check_interval={short}",
             *([f"--data.cache_dir={args.cache_dir}"] if args.cache_dir else []),
             *(option.format(**said) for option in options)]
        )  # fmt: skip
    return load_codebook(folder / "codebook").quantizer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of audio or manifest, as --data.root of train.py")
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--cache_dir", help="of encoded latents")
    parser.add_argument("--runs", type=Path, default=Path("runs/quantizers"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    text = table(arguments)
    print(text)
    old = arguments.page.read_text(encoding="utf-8")
    new = old[: old.index(BEGIN) + len(BEGIN)] + f"\n{text}\n" + old[old.index(END) :]
    arguments.page.write_text(new, encoding="utf-8")
