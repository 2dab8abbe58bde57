"""Measure a backbone on the validation clips of both pools: what each stage costs, by kind.

    python -m pocket.evaluate --backbone checkpoints/pocket --codebook checkpoints/codebooks/pocket-1024

Rows of perceptual metrics (visqol in its speech mode; stoi and pesq for speech) are there where ``.[metrics]`` is
installed. Prints a table in Markdown for each pool; ``--card FILE`` writes them between the marks of a model card, so
that the numbers there are always those of this command.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.marks import cell, fill, mean
from ddcm.audio.mel import log_mel, mel_error_db
from ddcm.audio.refine import refine
from ddcm.backbone import Backbone
from ddcm.evaluation.perceptual import installed
from ddcm.evaluation.signal_metrics import log_mel_corr, log_mel_mae_db
from ddcm.pipeline import DDCMPipeline
from pocket import pretrained
from pocket.batches import validation
from pocket.clap import features, upsample
from pocket.corpus import KINDS, SAMPLE_RATE, Clip, Corpus
from pocket.text import clap_tokens, tokenizers

TIMESTEPS = (25, 150, 350, 600, 850)
STRENGTHS = (0.1, 0.3, 0.6, 0.9)
ROWS = {
    "mel_vae": "VAE round trip, mel domain (dB)",
    "mel_quantised": "the same, quantised (dB)",
    "vocoder": "vocoder on the recording's own mel (dB)",
    "vocoder:worst": "the same, worst clip (dB)",
    "vocoder_refined": "refined vocoder on the recording's own mel (dB)",
    "vocoder_refined:worst": "the same, worst clip (dB)",
    "vae": "VAE and vocoder (dB)",
    "quantised": "VAE, codebook and vocoder (dB)",
    "refined": "VAE and refined vocoder (dB)",
    "refined:worst": "the same, worst clip (dB)",
    "eps_mse": "UNet, error of the noise with the caption",
    "null_eps_mse": "UNet, error of the noise without a prompt",
    "clap_kind": "CLAP: share of clips whose best caption of all clips' is of their kind",
    "corr": "VAE and vocoder, log_mel_corr",
    **{
        f"{way}_{name}": f"VAE and {'refined ' * (way == 'refined')}vocoder, {name}"
        for name in ("visqol", "stoi", "pesq_wb")
        for way in ("vae", "refined")
    },
    **{f"corr_{strength}": f"transform (refined) at strength {strength}, log_mel_corr" for strength in STRENGTHS},
}


def noise_error(backbone: Backbone, z: torch.Tensor, caption: str, seed: int) -> float:
    """Mean squared error of the UNet's noise estimate for a latent (1, C, L, F), over five timesteps."""
    abar = backbone.alphas_cumprod[list(TIMESTEPS)].float().to(z.device)[:, None, None, None]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(TIMESTEPS), *z.shape[1:], generator=generator).to(z.device)
    x = abar.sqrt() * z + (1 - abar).sqrt() * noise
    condition = backbone.condition(caption) if caption else backbone.null_condition()
    estimate = backbone.eps(x, torch.tensor(TIMESTEPS, device=z.device), condition)
    return float((estimate - noise).square().mean())


@torch.no_grad()
def match_captions(folder: Path, clips: list[tuple[Clip, np.ndarray]]) -> list[float]:
    """For each clip, 1 if CLAP finds the caption nearest to its audio among those of all clips to be of its kind."""
    model, pieces = pretrained.clap(folder)
    captions = sorted({clip.caption for clip, _ in clips})
    kinds = {clip.caption: clip.kind for clip, _ in clips}
    tokens = clap_tokens(tokenizers(pieces)[0], captions)
    texts = model.eval().get_text_features(**tokens).pooler_output
    shares = []
    for clip, audio in clips:
        inputs = features(upsample(torch.from_numpy(audio).float()[None]))
        scores = model.get_audio_features(input_features=inputs).pooler_output @ texts.T
        shares.append(float(kinds[captions[int(scores.argmax())]] == clip.kind))
    return shares


def measure(
    pipe: DDCMPipeline, audio: torch.Tensor, kind: str, caption: str, seed: int, perceptual: bool = True
) -> dict[str, float]:
    """All rows for one clip (S,), which fills whole latent frames; stoi and pesq of speech alone.

    ``seed`` is of the noise that the UNet estimates. Without ``perceptual`` the slow rows are left out: perceptual
    metrics and transforms.
    """
    backbone = pipe.backbone
    metrics = {name: hear for name, hear in installed().items() if kind == "speech" or name == "visqol"}
    metrics = metrics if perceptual else {}
    mel = log_mel(audio[None])
    row = {}

    def mel_error(other: torch.Tensor) -> float:
        return mel_error_db(other.cpu(), mel)

    for name, recipe in (("vae", "matched"), ("quantised", "quantised")):
        if recipe == "quantised" and pipe.codebook is None:
            continue
        out = pipe.reconstruct(audio, SAMPLE_RATE, recipe)
        row[f"mel_{name}"] = mel_error(out.mel)
        row[name] = log_mel_mae_db(audio, out.audio)
        if recipe == "matched":
            refined = pipe.reconstruct(audio, SAMPLE_RATE, vocoder="refined").audio
            row["refined"], row["corr"] = log_mel_mae_db(audio, refined), log_mel_corr(audio, out.audio)
            row |= {f"vae_{metric}": hear(audio, out.audio) for metric, hear in metrics.items()}
            row |= {f"refined_{metric}": hear(audio, refined) for metric, hear in metrics.items()}
    plain = backbone.vocode(mel.to(backbone.device))[0].cpu()
    row["vocoder"] = log_mel_mae_db(audio, plain)
    row["vocoder_refined"] = log_mel_mae_db(audio, refine(plain, mel, backbone.mel_spec))
    z = backbone.encode(mel.to(backbone.device))
    row["eps_mse"] = noise_error(backbone, z, caption, seed)
    row["null_eps_mse"] = noise_error(backbone, z, "", seed)
    if pipe.codebook is not None and perceptual:
        for strength in STRENGTHS:
            out = pipe.transform(audio, SAMPLE_RATE, strength=strength)
            row[f"corr_{strength}"] = log_mel_corr(audio, out.audio)
    return row


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Rows of measurements by kind -> Markdown: of each kind's clips and of all clips the mean, or the worst."""
    columns = {**rows, "all": [row for kind in rows.values() for row in kind]}
    lines = ["| | " + " | ".join(f"{name} ({len(clips)})" for name, clips in columns.items()) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for key, title in ROWS.items():
        name, _, worst = key.partition(":")
        values = [
            max((row[name] for row in clips if name in row), default=math.nan) if worst else mean(clips, name)
            for clips in columns.values()
        ]
        if not math.isnan(values[-1]):
            digits = 4 if name.endswith("eps_mse") else 2
            lines.append(f"| {title} | " + " | ".join(cell(value, digits) for value in values) + " |")
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
    parser.add_argument("--per_kind", type=int, default=16, help="clips of each kind of the first pool")
    parser.add_argument("--wide_per_kind", type=int, default=32, help="clips of each kind of the wide pool")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--card", type=Path, help="a model card to put the table into")
    args = parser.parse_args()
    pipe = DDCMPipeline.from_pretrained(args.backbone, args.codebook, device=args.device)
    corpus, tables = Corpus(args.corpus), []
    for pool, per_kind in (("first", args.per_kind), ("wide", args.wide_per_kind)):
        rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        clips = validation(corpus, args.seconds, per_kind, pool) if corpus.of("val", pool=pool) and per_kind else []
        named = match_captions(Path(args.backbone), clips) if clips else []
        for seed, (clip, audio) in enumerate(tqdm(clips, desc=f"clips of the {pool} pool")):
            row = {"clap_kind": named[seed]} | measure(
                pipe, torch.from_numpy(audio), clip.kind, clip.caption, seed, pool == "first"
            )
            rows[clip.kind].append(row)
        if clips:
            tables.append(f"Clips of the {pool} pool:\n\n{table(rows)}")
    text = "\n\n".join([*tables, training_table(Path(args.backbone))])
    print(text)
    if args.card:
        fill(args.card, "pocket.evaluate", text)
