"""The text of docs/recipes.md around its numbers."""

from collections.abc import Callable

from benchmarks import recipe_claims as claims
from benchmarks.marks import cell
from benchmarks.recipe_claims import Results, Values, median
from ddcm.recipes import KINDS as ADVICE
from ddcm.recipes import NEEDS, RECIPES, Recipe, list_settings
from pocket.corpus import KINDS

Column = tuple[str, Callable[[dict[str, Values]], float], int]
"""Heading, function from a row to its value, digits."""

OTHER_METRICS = ("log_mel_corr", "lsd_db", "mrstft", "hf_ratio_db")


def render_table(results: Results, rows: list[str], columns: list[Column]) -> str:
    lines = ["| recipe | " + " | ".join(head for head, _, _ in columns) + " |", "|---|" + "---|" * len(columns)]
    for name in rows:
        values = [(take(results[name]), digits) for _, take, digits in columns]
        cells = [cell(value, digits) for value, digits in values]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def columns_by_kind(metric: str, digits: int = 2) -> list[Column]:
    """The metric's median of each kind, and of all clips."""
    kinds = [(kind, lambda row, kind=kind: median(row[metric], kind), digits) for kind in KINDS]
    return [*kinds, ("all", lambda row: median(row[metric]), digits)]


def columns_overall(*metrics: str) -> list[Column]:
    return [(metric, lambda row, m=metric: median(row.get(m, {})), 2) for metric in metrics]


def format_settings(recipe: Recipe) -> str:
    return ", ".join(f"{key} {value}" for key, value in list_settings(recipe).items())


def _perceptual_metrics(results: Results) -> list[str]:
    known = next(iter(results.values()))
    return [name for name in ("pesq_wb", "stoi", "visqol") if name in known]


def _count_clips(row: dict[str, Values]) -> str:
    kinds = {kind: len(values) for kind, values in next(iter(row.values())).items()}
    return f"{sum(kinds.values())} ({', '.join(f'{kind} {kinds.get(kind, 0)}' for kind in KINDS)})"


def render_page(
    results: Results, plan: list[tuple[str, str, str, dict]], backbone: str, seconds: float, steps: int | None
) -> str:
    rows = {verb: [name for name, v, *_ in plan if v == verb] for verb in ("reconstruct", "transform", "generate")}
    raw = [name for name in rows["reconstruct"] if "raw" in name]
    converted = [name for name in rows["reconstruct"] if name not in raw]
    recipe_rows = "\n".join(f"| `{name}` | {recipe.verb} | {recipe.about} | {format_settings(recipe)} |"
                     for name, recipe in RECIPES.items())  # fmt: skip
    needs = "\n".join(f"| {need} | `{name}` | {why} |" for need, (name, why) in NEEDS.items())
    kinds = "\n".join(f"| {kind} | `{first}` | `{second}` |" for kind, (first, second) in ADVICE.items())
    shorter = f"Recipes that diffuse ran with {steps} steps instead of their own. " if steps else ""
    return f"""# Recipes

`python -m benchmarks.recipes` writes this page; its numbers and sentences are those of one run. Values are medians
over validation clips of at most {seconds:g} s, on {backbone}.
Clips for reconstruction: {_count_clips(results["matched"])}.
Clips for recipes that diffuse: {_count_clips(results["final"])}.
{shorter}`ddcm recipes` prints the table of settings.
`ddcm compare FILE -o DIR` writes a page with players for all recipes on one recording.

## What each recipe does

| recipe | verb | what | settings |
|---|---|---|---|
{recipe_rows}

Settings are flags of the same name. `none`, 1 and other defaults are left out.

## Reconstruction

`log_mel_mae_db` against the recording, by kind of audio (dB, lower is better). The upper bound is `matched`: mel, VAE
and vocoder as they were trained. {claims.describe_lowest(results)}

{render_table(results, converted, columns_by_kind("log_mel_mae_db"))}

The other metrics, over all kinds. `hf_ratio_db` is the energy above 4 kHz relative to the input; 0 is best.
{claims.describe_high_band(results)}

{render_table(results, converted, columns_overall(*OTHER_METRICS, *_perceptual_metrics(results)))}

### Without the conversion

With `--raw_features` the VAE gets the features of the original scripts: decibels, bands at 48 kHz. `log_mel_mae_db`:

{render_table(results, raw, columns_by_kind("log_mel_mae_db"))}

{claims.describe_raw_features(results)}

## Codebook and diffusion

`log_mel_corr` with the input. {claims.describe_correlation(results)}

{render_table(results, rows["transform"] + rows["generate"], columns_by_kind("log_mel_corr"))}

CLAP scores of the text recipes with their prompts (cosine, by the backbone's own CLAP).
{claims.describe_ranking(results)}

{render_table(results, rows["generate"], columns_by_kind("clap_score", 3))}

## Which one

By these measurements: {claims.recommend(results)} `input-based`
to change a recording. `ddcm recipes --for KIND` names the best of these measurements, and beside it the choice of the
scripts' authors, made by listening with the published AudioLDM2:

| need | recipe | why |
|---|---|---|
{needs}

| kind | first | second |
|---|---|---|
{kinds}
"""
