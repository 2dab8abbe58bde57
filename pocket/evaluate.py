"""Measure a backbone on the validation clips: what each stage costs, by kind.

    python -m pocket.evaluate --backbone checkpoints/pocket --codebook checkpoints/codebooks/pocket-1024

Rows of listeners (visqol in its speech mode; stoi and pesq for speech) are there where ``.[metrics]`` is installed.
Prints a table in Markdown; ``--card FILE`` writes it between the marks of a model card, so that the numbers there
are always those of this command.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.marks import cell, fill, mean
from ddcm.audio.mel import LN_TO_DB, log_mel
from ddcm.evaluation.metrics import log_mel_corr, log_mel_mae_db
from ddcm.evaluation.perceptual import installed
from ddcm.pipeline import DDCMPipeline
from pocket.batches import validation
from pocket.corpus import KINDS, SAMPLE_RATE, Corpus

STRENGTHS = (0.1, 0.3, 0.6, 0.9)
ROWS = {
    "mel_vae": "VAE round trip, mel domain (dB)",
    "mel_quantised": "the same, quantised (dB)",
    "vocoder": "vocoder on the recording's own mel (dB)",
    "vae": "VAE and vocoder (dB)",
    "quantised": "VAE, codebook and vocoder (dB)",
    "refined": "VAE and refined vocoder (dB)",
    "corr": "VAE and vocoder, log_mel_corr",
    **{
        f"{way}_{name}": f"VAE and {'refined ' * (way == 'refined')}vocoder, {name}"
        for name in ("visqol", "stoi", "pesq_wb")
        for way in ("vae", "refined")
    },
    **{f"corr_{strength}": f"transform (refined) at strength {strength}, log_mel_corr" for strength in STRENGTHS},
}


def measure(pipe: DDCMPipeline, audio: torch.Tensor, kind: str) -> dict[str, float]:
    """All rows for one clip (S,), which fills whole latent frames; stoi and pesq of speech alone."""
    backbone = pipe.backbone
    listeners = {name: hear for name, hear in installed().items() if kind == "speech" or name == "visqol"}
    mel = log_mel(audio[None])
    row = {}

    def mel_error(other: torch.Tensor) -> float:
        return float((other.cpu() - mel).abs().mean()) * LN_TO_DB

    for name, recipe in (("vae", "matched"), ("quantised", "quantised")):
        if recipe == "quantised" and pipe.codebook is None:
            continue
        out = pipe.reconstruct(audio, SAMPLE_RATE, recipe)
        row[f"mel_{name}"] = mel_error(out.mel)
        row[name] = log_mel_mae_db(audio, out.audio)
        if recipe == "matched":
            refined = pipe.reconstruct(audio, SAMPLE_RATE, vocoder="refined").audio
            row["refined"], row["corr"] = log_mel_mae_db(audio, refined), log_mel_corr(audio, out.audio)
            row |= {f"vae_{metric}": hear(audio, out.audio) for metric, hear in listeners.items()}
            row |= {f"refined_{metric}": hear(audio, refined) for metric, hear in listeners.items()}
    row["vocoder"] = log_mel_mae_db(audio, backbone.vocode(mel)[0].cpu())
    if pipe.codebook is not None:
        for strength in STRENGTHS:
            out = pipe.transform(audio, SAMPLE_RATE, strength=strength)
            row[f"corr_{strength}"] = log_mel_corr(audio, out.audio)
    return row


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Rows of measurements by kind -> Markdown, the mean of each kind's clips and of all clips."""
    columns = {**rows, "all": [row for kind in rows.values() for row in kind]}
    lines = ["| | " + " | ".join(f"{name} ({len(clips)})" for name, clips in columns.items()) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for key, title in ROWS.items():
        means = [mean(clips, key) for clips in columns.values()]
        if not math.isnan(means[-1]):
            lines.append(f"| {title} | " + " | ".join(cell(value, 2) for value in means) + " |")
    return "\n".join(lines)


def training_table(folder: Path) -> str:
    """What ``pocket.assemble`` wrote down: how long each stage was trained."""
    facts = json.loads((folder / "training.json").read_text())
    lines = ["| stage | steps | minutes |", "|---|---|---|"]
    return "\n".join(lines + [f"| {stage} | {row['steps']} | {row['minutes']} |" for stage, row in facts.items()])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--codebook", help="leave out to measure without one")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--seconds", type=float, default=5.12)
    parser.add_argument("--per_kind", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--card", type=Path, help="a model card to put the table into")
    args = parser.parse_args()
    pipe = DDCMPipeline.from_pretrained(args.backbone, args.codebook, device=args.device)
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for clip, audio in tqdm(validation(Corpus(args.corpus), args.seconds, args.per_kind), desc="clips"):
        rows[clip.kind].append(measure(pipe, torch.from_numpy(audio), clip.kind))
    text = f"{table(rows)}\n\n{training_table(Path(args.backbone))}"
    print(text)
    if args.card:
        fill(args.card, "pocket.evaluate", text)
