"""Sentences about the recipes, computed from the measurements, so that none can contradict them."""

import math
import statistics

from ddcm.recipes import RECIPES

STRENGTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
Values = dict[str, list[float]]  # kind -> a value for each clip
Results = dict[str, dict[str, Values]]  # row -> metric -> values

FRONT_ENDS = [name for name, r in RECIPES.items() if r.verb == "reconstruct" and r.features != "matched"]
TEXT = [name for name, r in RECIPES.items() if r.verb == "generate"]
NEAR_DB = 3.0  # largest loss of a recipe with conversion against matched


def median(values: Values, kind: str | None = None) -> float:
    """Median over the clips of a kind, or over all clips; NaN if every value is NaN."""
    numbers = [x for k, row in values.items() if kind in (None, k) for x in row if not math.isnan(x)]
    return statistics.median(numbers) if numbers else math.nan


def _errors(results: Results) -> dict[str, float]:
    """Median error of each recipe with the plain vocoder and nothing quantised."""
    return {name: median(results[name]["log_mel_mae_db"]) for name in ["matched", *FRONT_ENDS]}


def _high_band_distance(results: Results) -> dict[str, float]:
    """Median distance of hf_ratio_db from 0, clip by clip."""
    return {name: median({"": [abs(x) for row in results[name]["hf_ratio_db"].values() for x in row]})
            for name in FRONT_ENDS}  # fmt: skip


def describe_lowest(results: Results) -> str:
    errors = _errors(results)
    best, behind = min(errors, key=errors.get), {name: errors[name] - errors["matched"] for name in FRONT_ENDS}
    worst = max(behind, key=behind.get)
    far = [name for name in FRONT_ENDS if behind[name] > NEAR_DB]
    reach = f"all within {NEAR_DB:g} dB of it" if not far else f"further than {NEAR_DB:g} dB: {', '.join(far)}"
    lead = "the lowest" if best == "matched" else f"not the lowest (`{best}` is, by {-behind[best]:.2f} dB)"
    return (
        f"Of the recipes with the plain vocoder and nothing quantised `matched` has {lead} median of all clips; the "
        f"others are {reach}, at most {behind[worst]:+.2f} dB (`{worst}`)."
    )


def describe_high_band(results: Results) -> str:
    off = _high_band_distance(results)
    v4, v5, fix = (off[name] for name in ("v4-high-freq", "v5-high-freq", "ultimate-fix"))
    relation = "both closer to 0 than" if max(v4, v5) < fix else "not both closer to 0 than"
    return (
        f"Clip by clip the median distance of `hf_ratio_db` from 0 is {v4:.2f} dB for `v4-high-freq` and {v5:.2f} for "
        f"`v5-high-freq`, {relation} `ultimate-fix` with {fix:.2f}."
    )


def describe_raw_features(results: Results) -> str:
    errors = _errors(results)
    worse = [median(results[f"{name}, raw features"]["log_mel_mae_db"]) - errors[name] for name in FRONT_ENDS]
    return f"Without the conversion the recipes are {min(worse):.2f} to {max(worse):.2f} dB further from the recording."


def describe_correlation(results: Results) -> str:
    text = [median(results[name]["log_mel_corr"]) for name in TEXT]
    near, far = (median(results[f"input-based, strength {s:g}"]["log_mel_corr"]) for s in (STRENGTHS[0], STRENGTHS[-1]))
    return (
        f"`input-based` follows it as far as its strength says ({near:.2f} at {STRENGTHS[0]:g}, {far:.2f} at "
        f"{STRENGTHS[-1]:g}); the text recipes share only caption and length with it ({min(text):.2f} to "
        f"{max(text):.2f})."
    )


def describe_ranking(results: Results) -> str:
    best = [x for row in results["full-diffusion"]["clap_score"].values() for x in row]
    mean = [x for row in results["full-diffusion"]["clap_mean"].values() for x in row]
    return (
        f"`full-diffusion` keeps the best of {RECIPES['full-diffusion'].n} by this score: on average "
        f"{statistics.mean(best):.3f}, where all its candidates have {statistics.mean(mean):.3f}."
    )


def recommend(results: Results) -> str:
    errors, off = _errors(results), _high_band_distance(results)
    refined = median(results["refined"]["log_mel_mae_db"])
    best = min(errors, key=errors.get)
    chosen = f"`{best}`"
    if refined < errors[best]:
        chosen = f"`refined` ({refined:.2f} dB; `matched`, the same with the plain vocoder, {errors['matched']:.2f})"
    return f"{chosen}; `{min(off, key=off.get)}` where the energy of the high band matters more than the error;"
