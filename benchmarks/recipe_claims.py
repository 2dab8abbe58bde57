"""Sentences about the recipes, computed from what was measured: a claim that does not hold says so by itself."""

from __future__ import annotations

import math
import statistics

from ddcm.recipes import RECIPES

STRENGTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
Values = dict[str, list[float]]  # kind -> a value for each clip
Found = dict[str, dict[str, Values]]  # row -> metric -> values

FRONT_ENDS = [name for name, r in RECIPES.items() if r.verb == "reconstruct" and r.features != "matched"]
TEXT = [name for name, r in RECIPES.items() if r.verb == "generate"]
NEAR_DB = 3.0  # what a recipe with conversion may lose on matched


def median(values: Values, kind: str | None = None) -> float:
    """Over the clips of a kind, or of all; NaN where no value is a number."""
    told = [x for k, row in values.items() if kind in (None, k) for x in row if not math.isnan(x)]
    return statistics.median(told) if told else math.nan


def _errors(found: Found) -> dict[str, float]:
    """Of the recipes with the plain vocoder and nothing quantised."""
    return {name: median(found[name]["log_mel_mae_db"]) for name in ["matched", *FRONT_ENDS]}


def _off_balance(found: Found) -> dict[str, float]:
    """Median distance of hf_ratio_db from 0, clip by clip."""
    return {name: median({"": [abs(x) for row in found[name]["hf_ratio_db"].values() for x in row]})
            for name in FRONT_ENDS}  # fmt: skip


def lowest(found: Found) -> str:
    errors = _errors(found)
    best, behind = min(errors, key=errors.get), {name: errors[name] - errors["matched"] for name in FRONT_ENDS}
    worst = max(behind, key=behind.get)
    far = [name for name in FRONT_ENDS if behind[name] > NEAR_DB]
    reach = f"all within {NEAR_DB:g} dB of it" if not far else f"further than {NEAR_DB:g} dB: {', '.join(far)}"
    lead = "the lowest" if best == "matched" else f"not the lowest (`{best}` is, by {-behind[best]:.2f} dB)"
    return (
        f"Of the recipes with the plain vocoder and nothing quantised `matched` has {lead} median of all clips; the "
        f"others are {reach}, at most {behind[worst]:+.2f} dB (`{worst}`)."
    )


def high_band(found: Found) -> str:
    off = _off_balance(found)
    v4, v5, fix = (off[name] for name in ("v4-high-freq", "v5-high-freq", "ultimate-fix"))
    said = "both closer to 0 than" if max(v4, v5) < fix else "not both closer to 0 than"
    return (
        f"Clip by clip the median distance of `hf_ratio_db` from 0 is {v4:.2f} dB for `v4-high-freq` and {v5:.2f} for "
        f"`v5-high-freq`, {said} `ultimate-fix` with {fix:.2f}."
    )


def without_conversion(found: Found) -> str:
    errors = _errors(found)
    worse = [median(found[f"{name}, raw features"]["log_mel_mae_db"]) - errors[name] for name in FRONT_ENDS]
    return f"Without the conversion the recipes are {min(worse):.2f} to {max(worse):.2f} dB further from the recording."


def follows(found: Found) -> str:
    text = [median(found[name]["log_mel_corr"]) for name in TEXT]
    near, far = (median(found[f"input-based, strength {s:g}"]["log_mel_corr"]) for s in (STRENGTHS[0], STRENGTHS[-1]))
    return (
        f"`input-based` follows it as far as its strength says ({near:.2f} at {STRENGTHS[0]:g}, {far:.2f} at "
        f"{STRENGTHS[-1]:g}); the text recipes share only caption and length with it ({min(text):.2f} to "
        f"{max(text):.2f})."
    )


def ranked(found: Found) -> str:
    best = [x for row in found["full-diffusion"]["clap_score"].values() for x in row]
    mean = [x for row in found["full-diffusion"]["clap_mean"].values() for x in row]
    return (
        f"`full-diffusion` keeps the best of {RECIPES['full-diffusion'].n} by this score: on average "
        f"{statistics.mean(best):.3f}, where all its candidates have {statistics.mean(mean):.3f}."
    )


def by_numbers(found: Found) -> str:
    errors, off = _errors(found), _off_balance(found)
    refined = median(found["matched, refined vocoder"]["log_mel_mae_db"])
    best = min(errors, key=errors.get)
    chosen = f"`{best}`"
    if refined < errors[best]:
        chosen = f"`matched` with the refined vocoder ({refined:.2f} dB; {errors['matched']:.2f} without)"
    return f"{chosen}; `{min(off, key=off.get)}` where the energy of the high band matters more than the error;"
