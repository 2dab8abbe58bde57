"""What the encoder's noise is chosen for: the latent, the decoded mel, or both, and what each costs.

    python -m benchmarks.noise_choice --corpus runs/corpus [--rates 1 4] [--page docs/explanation.md]

Training clips are coded together, so the figures can be compared within a column only. Each is what the decoded mels
lose to those of the latent that was coded, which is the encoder's posterior mean, whatever the row aims at. "Towards a
nearer latent" first moves the latent through the decoder until its mel is nearest to the recording's (Adam, 60 steps).
STOI, PESQ and ViSQOL are of as many clips of speech at the first rate, refined.
"""

import argparse
import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.marks import fill
from benchmarks.trial import Trial, make_trial, read_training_clips
from ddcm.audio.mel import mel_error_db
from ddcm.audio.refine import refine
from ddcm.backbone import Backbone, load
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.mel_errors import MeasureError, half_square, loud_three_halves, perceptual_error
from ddcm.codec.rate_control import SHIPPED, interpolate, read_rows
from ddcm.codec.targets import Targets, make_residual
from ddcm.evaluation.perceptual import PERCEPTUAL


@dataclass(frozen=True)
class Row:
    title: str
    mel_weight: float = CodecSettings.mel_weight
    mel_share: float = CodecSettings.mel_share
    mel_interval: int = CodecSettings.mel_interval
    steps: int = 30
    measure: MeasureError = perceptual_error
    seeds: int = 1
    """how many start noises are tried; the best is kept, clip by clip"""
    is_nearer: bool = False
    """whether the latent is moved through the decoder first"""


def three_halves(decoded: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
    """Magnitudes to the power of 1.5."""
    return ((decoded - mel).square() + 1e-6).pow(0.75).sum()


def magnitude(decoded: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
    return (decoded - mel).abs().sum()


def loud(decoded: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
    """Squares weighted by the level: from 0 at the mel's floor to 1 at its peak."""
    level = (mel - math.log(1e-5)) / (mel.max() - math.log(1e-5)).clamp(min=1e-3)
    return 0.5 * (level * (decoded - mel).square()).sum()


def balanced(decoded: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
    """Squares over each frame's own spread, so that quiet frames between loud ones count as much."""
    spread = mel.std(dim=3, keepdim=True).clamp(min=0.3)
    return 0.5 * ((decoded - mel) / spread).square().sum()


ROWS = (
    Row("the latent alone", 0.0),
    Row("the latent, and twice as much the mel, anew in every second of the last 19 of 29 steps (the default)"),
    Row("the mel anew in each of these steps", mel_interval=1),
    Row("anew in every third of them", mel_interval=3),
    Row("both alike", 1.0),
    Row("four times as much the mel", 4.0),
    Row("twice as much in the last third", mel_share=1 / 3),
    Row("twice as much in all steps", mel_share=1.0),
    Row("both alike in all steps", 1.0, 1.0),
    Row("the default, 15 UNet calls", steps=15),
    Row("the latent alone, 15 UNet calls", 0.0, steps=15),
    Row("the default without the error of structure", measure=loud_three_halves),
    Row("the default without it, and loud cells of the mel count no more than others", measure=three_halves),
    Row("the default, squared errors, all alike", measure=half_square),
    Row("the default, magnitudes, all alike", measure=magnitude),
    Row("the default, squares weighted by the level", measure=loud),
    Row("the default, squares over each frame's spread", measure=balanced),
    Row("the default, the best of four start seeds", seeds=4),
    Row("the default, towards a nearer latent", is_nearer=True),
)


def move_latents(backbone, targets: Targets, steps: int = 60, rate: float = 0.05) -> Targets:
    """The targets with z moved to where the decoder's mel is nearest to the recording's, in the mean of magnitudes."""
    rows = []
    for start, mel in zip(targets.z.split(1), targets.mels.split(1), strict=True):
        with torch.enable_grad():
            z = start.clone().requires_grad_()
            optimizer = torch.optim.Adam([z], lr=rate)
            for step in range(steps):
                optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
                optimizer.zero_grad()
                (backbone.decode(z) - mel).abs().mean().backward()
                optimizer.step()
        rows.append(z.detach())
    return replace(targets, z=torch.cat(rows))


def judge_speech(clips: list[torch.Tensor], backbone: Backbone, latents: torch.Tensor) -> list[str]:
    """Means of the perceptual metrics of clips (S,) of speech, as their cells."""
    sums = dict.fromkeys(PERCEPTUAL, 0.0)
    for audio, z in zip(clips, latents.split(1), strict=True):
        mel = backbone.decode(z)
        decoded = refine(backbone.vocode(mel)[0], mel, backbone.mel_spec)[: len(audio)]
        sums = {name: total + PERCEPTUAL[name][1](audio, decoded) for name, total in sums.items()}
    return [f"{total / len(clips):.2f}" for total in sums.values()]


def measure(
    trial: Trial, rates: list[float], speech: list[torch.Tensor], only: Sequence[str] = ("",)
) -> list[str]:  # fmt: skip
    """The table in Markdown: a line for each of ``ROWS`` whose title begins with one of ``only``."""
    backbone, own = trial.backbone, trial.targets
    judged = make_trial(backbone, speech) if speech else None
    shapes = read_rows(SHIPPED, trial.header.backbone)
    nearer = move_latents(backbone, own)
    moved = mel_error_db(backbone.decode(nearer.z), own.mels)
    head = ("noise chosen for", *(f"{rate:g} kbps, dB" for rate in rates), "processor time")
    head += tuple(PERCEPTUAL) if judged else ()
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    first = None
    for row in tqdm([row for row in ROWS if row.title.startswith(tuple(only))], desc="rows"):
        targets = nearer if row.is_nearer else own
        how = dict(mel_weight=row.mel_weight, mel_share=row.mel_share, mel_interval=row.mel_interval)
        make = functools.partial(make_residual, measure=row.measure)
        begin, losses = time.process_time(), []
        for rate in rates:
            shape, errors = interpolate(rate, row.steps, shapes), []
            for seed in range(row.seeds):
                header = replace(trial.header, seed=seed)
                one = replace(trial, header=header, targets=replace(targets, **how), make=make)
                errors.append(one.errors_of_clips(shape, rate))
            losses.append(float(torch.stack(errors).amin(dim=0).mean()) - trial.ceiling)
        seconds = time.process_time() - begin
        first = first or seconds
        cells = [row.title, *(f"{loss:.3f}" for loss in losses), f"{seconds / first:.1f} times"]
        if judged and row.seeds == 1 and not row.is_nearer:
            one = replace(judged, targets=replace(judged.targets, **how), make=make)
            cells += judge_speech(speech, backbone, one.code(interpolate(rates[0], row.steps, shapes), rates[0]))
        elif judged:
            cells += ["-"] * len(PERCEPTUAL)
        lines.append(f"| {' | '.join(cells)} |")
    return [
        *lines, "", f"{len(own.z)} training clips of {trial.seconds:g} s. The mels of their latents are "
        f"{trial.ceiling:.2f} dB from those of the recordings, the mels of the nearer latents {moved:.2f} dB.",
    ]  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose titles begin so")
    parser.add_argument("--seconds", type=float, default=2.56)
    parser.add_argument("--page", type=Path, help="a page to put the table into, such as docs/codec.md")
    args = parser.parse_args()
    with torch.no_grad():
        trial = make_trial(load(args.backbone), read_training_clips(args.corpus, args.seconds, args.clips))
        speech = read_training_clips(args.corpus, args.seconds, args.clips, ["speech"])
        text = "\n".join(measure(trial, args.rates, speech, args.only))
    print(text)
    if args.page:
        fill(args.page, "benchmarks.noise_choice", text)
