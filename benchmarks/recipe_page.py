"""The text of docs/recipes.md around its numbers."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import recipe_claims as claims
from benchmarks.marks import cell
from benchmarks.recipe_claims import Found, Values, median
from ddcm.recipes import KINDS as ADVICE
from ddcm.recipes import NEEDS, RECIPES, Recipe, list_settings
from pocket.corpus import KINDS

Column = tuple[str, Callable[[dict[str, Values]], float], int]
"""Heading, what to take of a row, digits."""


def table(found: Found, rows: list[str], columns: list[Column]) -> str:
    lines = ["| recipe | " + " | ".join(head for head, _, _ in columns) + " |", "|---|" + "---|" * len(columns)]
    for name in rows:
        values = [(take(found[name]), digits) for _, take, digits in columns]
        cells = [cell(value, digits) for value, digits in values]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def by_kind(metric: str, digits: int = 2) -> list[Column]:
    """The metric's median of each kind, and of all clips."""
    kinds = [(kind, lambda row, kind=kind: median(row[metric], kind), digits) for kind in KINDS]
    return [*kinds, ("all", lambda row: median(row[metric]), digits)]


def overall(*metrics: str) -> list[Column]:
    return [(metric, lambda row, m=metric: median(row.get(m, {})), 2) for metric in metrics]


def said_settings(recipe: Recipe) -> str:
    return ", ".join(f"{key} {value}" for key, value in list_settings(recipe).items())


def _listeners(found: Found) -> list[str]:
    known = next(iter(found.values()))
    return [name for name in ("pesq_wb", "stoi", "visqol") if name in known]


def _counted(row: dict[str, Values]) -> str:
    kinds = {kind: len(values) for kind, values in next(iter(row.values())).items()}
    return f"{sum(kinds.values())} ({', '.join(f'{kind} {kinds.get(kind, 0)}' for kind in KINDS)})"


def page(found: Found, plan: list[tuple[str, str, str, dict]], backbone: str, seconds: float, steps: int | None) -> str:
    rows = {verb: [name for name, v, *_ in plan if v == verb] for verb in ("reconstruct", "transform", "generate")}
    raw = [name for name in rows["reconstruct"] if "raw" in name]
    converted = [name for name in rows["reconstruct"] if name not in raw]
    said = "\n".join(f"| `{name}` | {recipe.verb} | {recipe.about} | {said_settings(recipe)} |"
                     for name, recipe in RECIPES.items())  # fmt: skip
    needs = "\n".join(f"| {need} | `{name}` | {why} |" for need, (name, why) in NEEDS.items())
    kinds = "\n".join(f"| {kind} | `{first}` | `{second}` |" for kind, (first, second) in ADVICE.items())
    shorter = f"Recipes that diffuse ran with {steps} steps instead of their own. " if steps else ""
    return f"""# Recipes

Written by `python -m benchmarks.recipes`; every number and what is said of it is of that run: {backbone}, medians over
validation clips of at most {seconds:g} s. Reconstruction: {_counted(found["matched"])}.
What diffuses: {_counted(found["final"])}.
{shorter}`ddcm recipes` prints the table of settings,
`ddcm compare FILE -o DIR` makes a page of one recording with all of them to listen to.

## What each one does

| recipe | verb | what | settings |
|---|---|---|---|
{said}

Settings are flags of the same name. `none`, 1 and other defaults are left out.

## Reconstruction

`log_mel_mae_db` against the recording, by kind (dB, lower is better). The ceiling is `matched`: mel, VAE and vocoder as
they were trained. {claims.lowest(found)}

{table(found, converted, by_kind("log_mel_mae_db"))}

The other metrics, all kinds. `hf_ratio_db` is the energy above 4 kHz over the input's, 0 is best.
{claims.high_band(found)}

{table(found, converted, overall("log_mel_corr", "lsd_db", "mrstft", "hf_ratio_db", *_listeners(found)))}

### Without the conversion

`--raw_features` gives the VAE what the recipes' scripts gave it: decibels, 48 kHz bands. `log_mel_mae_db`:

{table(found, raw, by_kind("log_mel_mae_db"))}

{claims.without_conversion(found)}

## Codebook and diffusion

`log_mel_corr` with the input. {claims.follows(found)}

{table(found, rows["transform"] + rows["generate"], by_kind("log_mel_corr"))}

CLAP scores of the text recipes with their prompts (cosine; the backbone's own CLAP judges). {claims.ranked(found)}

{table(found, rows["generate"], by_kind("clap_score", 3))}

## Which one

By the numbers: {claims.by_numbers(found)} `input-based`
to change a recording. The choices of the scripts' authors, made by ear with the published AudioLDM2
(`ddcm recipes --for NEED or KIND`):

| need | recipe | why |
|---|---|---|
{needs}

| kind | first | second |
|---|---|---|
{kinds}
"""
