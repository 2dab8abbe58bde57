"""Measure every recipe on the validation clips and write docs/recipes.md.

    python -m docs.recipes --stamp                               # everything: an hour or two on two cores
    python -m docs.recipes --seconds 2.56 --per_kind 2 --out /tmp/recipes.md

The clips are those of ``pocket.evaluate`` (``python -m pocket.corpus`` builds them); text recipes get each clip's
caption as their prompt and its length as theirs. The text around the numbers is here as well: what the page says of a
number is computed from it.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from ddcm import recipes
from ddcm.advice import KINDS as ADVICE
from ddcm.advice import NEEDS
from ddcm.evaluate import measure
from ddcm.files import whole
from ddcm.pipeline import DDCMPipeline
from ddcm.recipes import RECIPES, settings
from pocket.batches import validation
from pocket.corpus import KINDS, SAMPLE_RATE, Corpus

STRENGTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
Values = dict[str, list[float]]  # kind -> a value for each clip


def plan() -> list[tuple[str, str, str, dict]]:
    """(name, verb, recipe, flags) of every row."""
    rows = [(name, "reconstruct", name, {}) for name, r in RECIPES.items() if r.verb == "reconstruct"]
    rows.append(("matched, refined vocoder", "reconstruct", "matched", {"vocoder": "refined"}))
    for name, recipe in RECIPES.items():
        if recipe.verb == "reconstruct" and recipe.features != "matched":
            rows.append((f"{name}, raw features", "reconstruct", name, {"raw_features": True}))
    rows += [(f"input-based, strength {s:g}", "transform", "input-based", {"strength": s}) for s in STRENGTHS]
    return rows + [(name, "generate", name, {}) for name, r in RECIPES.items() if r.verb == "generate"]


def run(pipe: DDCMPipeline, verb: str, recipe: str, flags: dict, audio: torch.Tensor, caption: str):
    if verb == "generate":
        return pipe.generate(caption, len(audio) / SAMPLE_RATE, recipe=recipe, **flags)
    return getattr(pipe, verb)(audio, SAMPLE_RATE, recipe=recipe, **flags)


def measured(pipe: DDCMPipeline, clips, steps: int | None) -> dict[str, dict[str, Values]]:
    """row -> metric -> kind -> values."""
    found: dict[str, dict[str, Values]] = {}
    with tqdm(total=len(plan()) * len(clips), unit="clip") as bar:
        for name, verb, recipe, flags in plan():
            bar.set_description(name)
            more = {"steps": steps} if steps and verb != "reconstruct" else {}
            for clip, samples in clips:
                audio = torch.from_numpy(samples)
                out = run(pipe, verb, recipe, flags | more, audio, clip.caption)
                row = measure(audio, out.audio)
                if verb == "generate":
                    row["clap_score"] = pipe.backbone.clap_scores([out.audio], clip.caption)[0]
                for key, value in row.items():
                    found.setdefault(name, {}).setdefault(key, {}).setdefault(clip.kind, []).append(value)
                bar.update()
    return found


def median(values: Values, kind: str | None = None) -> float:
    """Over the clips of a kind, or of all; NaN where no value is a number."""
    told = [x for k, row in values.items() if kind in (None, k) for x in row if not math.isnan(x)]
    return statistics.median(told) if told else math.nan


def table(found, rows: list[str], columns: list[tuple[str, Callable[[dict[str, Values]], float], int]]) -> str:
    """Markdown: (heading, what to take of a row, digits)."""
    lines = ["| recipe | " + " | ".join(head for head, _, _ in columns) + " |", "|---|" + "---|" * len(columns)]
    for name in rows:
        values = [(take(found[name]), digits) for _, take, digits in columns]
        cells = ["-" if math.isnan(value) else f"{value:.{digits}f}" for value, digits in values]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def by_kind(metric: str, digits: int = 2) -> list:
    """Columns: the metric's median of each kind, and of all clips."""
    kinds = [(kind, lambda row, kind=kind: median(row[metric], kind), digits) for kind in KINDS]
    return [*kinds, ("all", lambda row: median(row[metric]), digits)]


def overall(*metrics: str) -> list:
    return [(metric, lambda row, m=metric: median(row.get(m, {})), 2) for metric in metrics]


def page(found, clips, args, steps: int | None) -> str:
    counts = ", ".join(f"{kind} {sum(clip.kind == kind for clip, _ in clips)}" for kind in KINDS)
    reconstruct = [name for name, verb, _, _ in plan() if verb == "reconstruct" and "raw" not in name]
    raw = [name for name, *_ in plan() if "raw" in name]
    transform = [name for name, verb, _, _ in plan() if verb == "transform"]
    text = [name for name, verb, _, _ in plan() if verb == "generate"]
    mae = {name: median(found[name]["log_mel_mae_db"]) for name in found}
    plain = [name for name in reconstruct if "refined" not in name and name != "quantised"]
    best = min(plain, key=mae.get)
    worst = max(mae[name] - mae["matched"] for name in plain)
    high = {name: statistics.median(abs(x) for row in found[name]["hf_ratio_db"].values() for x in row)
            for name in reconstruct}  # fmt: skip
    said = "\n".join(f"| `{name}` | {recipe.verb} | {recipe.about} | {_settings(recipe)} |"
                     for name, recipe in RECIPES.items())  # fmt: skip
    needs = "\n".join(f"| {need} | `{name}` | {why} |" for need, (name, why) in NEEDS.items())
    kinds = "\n".join(f"| {kind} | `{first}` | `{second}` |" for kind, (first, second) in ADVICE.items())
    shorter = f" Recipes that diffuse ran with {steps} steps instead of their own." if steps else ""
    told = [median(found[name]["log_mel_corr"]) for name in text]
    follows = median(found[transform[0]]["log_mel_corr"])
    return f"""# Recipes

Written by `python -m docs.recipes`; every number is of that run: {args.backbone}, {len(clips)} validation clips of
at most {args.seconds:g} s ({counts}), medians.{shorter} `ddcm recipes` prints the table of settings,
`ddcm compare FILE -o DIR` makes a page of one recording with all of them to listen to.

## What each one does

| recipe | verb | what | settings |
|---|---|---|---|
{said}

Settings are flags of the same name. `none`, 1 and other defaults are left out.

## Reconstruction

`log_mel_mae_db` against the recording, by kind (dB, lower is better). The ceiling is `matched`: mel, VAE and vocoder
as they were trained. Of those with the plain vocoder and nothing quantised `{best}` is the best; the others are up to
{worst:.2f} dB behind `matched`.

{table(found, reconstruct, by_kind("log_mel_mae_db"))}

The other metrics, all kinds (`hf_ratio_db`: energy above 4 kHz over the input's, 0 is best; clip by clip the median
distance from 0 is {high["ultimate-fix"]:.2f} dB for `ultimate-fix`, {high["v4-high-freq"]:.2f} for `v4-high-freq`,
{high["v5-high-freq"]:.2f} for `v5-high-freq`):

{table(found, reconstruct, overall("log_mel_corr", "lsd_db", "mrstft", "hf_ratio_db", *_listeners(found)))}

### Without the conversion

`--raw_features` gives the VAE what the recipes' scripts gave it: decibels, 48 kHz bands. `log_mel_mae_db`:

{table(found, raw, by_kind("log_mel_mae_db"))}

## Codebook and diffusion

`log_mel_corr` with the input. `input-based` follows it as far as its strength says; text recipes only share its
caption and length ({min(told):.2f} to {max(told):.2f}, where strength {STRENGTHS[0]:g} has {follows:.2f}).

{table(found, transform + text, by_kind("log_mel_corr"))}

CLAP scores of the text recipes with their prompts (cosine; the backbone's own CLAP judges):

{table(found, text, by_kind("clap_score", 3))}

## Which one

By the numbers: `matched`, with the refined vocoder where the backbone's own is weak; `v5-high-freq` where the energy of
the high band matters more than the error; `input-based` to change a recording. The choices of the scripts' authors,
made by ear with the published AudioLDM2 (`ddcm recipes --for NEED or KIND`):

| need | recipe | why |
|---|---|---|
{needs}

| kind | first | second |
|---|---|---|
{kinds}
"""


def stamp(found, file: Path) -> None:
    """Put each row's measured result into the comment that ends its first line in the table of recipes."""
    text = file.read_text(encoding="utf-8")
    for name, recipe in RECIPES.items():
        if recipe.verb == "reconstruct":
            values = [f"{m} {median(found[name][m]):.2f}" for m in ("log_mel_mae_db", "hf_ratio_db")]
        elif recipe.verb == "transform":
            rows = [found[f"{name}, strength {s:g}"]["log_mel_corr"] for s in STRENGTHS]
            values = ["log_mel_corr " + ", ".join(f"{median(row):.2f}" for row in rows)]
            values.append("at strength " + ", ".join(f"{s:g}" for s in STRENGTHS))
        else:
            values = [f"{m} {median(found[name][m]):.2f}" for m in ("log_mel_corr", "clap_score")]
        text, count = re.subn(rf'("{re.escape(name)}": Recipe\()  #.*', rf"\1  # {', '.join(values)}", text)
        assert count == 1, f"{file}: no row for {name}"
    with whole(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _settings(recipe) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings(recipe).items())


def _listeners(found) -> list[str]:
    known = next(iter(found.values()))
    return [name for name in ("pesq_wb", "stoi", "visqol") if name in known]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--codebook", default="checkpoints/codebooks/pocket-1024")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--seconds", type=float, default=5.12)
    parser.add_argument("--per_kind", type=int, default=16)
    parser.add_argument("--steps", type=int, help="of recipes that diffuse, to be quicker; the page says so")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("docs/recipes.md"))
    parser.add_argument("--stamp", action="store_true", help="also put the results beside the rows of ddcm/recipes.py")
    args = parser.parse_args()
    pipe = DDCMPipeline.from_pretrained(args.backbone, args.codebook, device=args.device)
    clips = validation(Corpus(args.corpus), args.seconds, args.per_kind)
    found = measured(pipe, clips, args.steps)
    with whole(args.out) as temporary:
        temporary.write_text(page(found, clips, args, args.steps), encoding="utf-8")
    if args.stamp:
        stamp(found, Path(recipes.__file__))
    print(args.out)
