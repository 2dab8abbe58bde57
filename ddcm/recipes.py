"""Recipes: named rows of settings, and which to take. Names and numbers only; nothing here imports torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches

from ddcm.errors import UserError

CHOICES: dict[str, tuple[str, ...]] = {
    "verb": ("reconstruct", "transform", "generate"),
    "features": ("matched", "clap", "librosa", "librosa-high", "plain"),
    "limiter": ("none", "strict", "loose", "balanced"),
    "vocoder": ("backbone", "refined", "direct", "griffin-lim"),
    "after": ("none", "volume", "filter", "gentle", "protect", "limit"),
    "quantizer": ("none", "hard", "soft"),
    "acts_on": ("input", "estimates", "late-estimates", "output"),
    "solver": ("ddim", "dpm++", "unipc"),
}
CHAINS = ("vocoder", "after")  # several names with commas between them
RANGES: dict[str, tuple[float, float]] = {
    "mode_share": (0, 1),
    "temperature": (0, math.inf),
    "strength": (0, 1),
    "steps": (1, 1000),
    "guidance_scale": (-100, 100),
    "n": (1, 100),
}


@dataclass(frozen=True)
class Recipe:
    """How a verb is carried out. A flag overrides the recipe, the recipe overrides these defaults."""

    verb: str
    """reconstruct, transform or generate"""
    about: str
    features: str = "matched"
    """front end: matched, clap, librosa, librosa-high or plain (ddcm.audio.frontends)"""
    raw_features: bool = False
    """leave out the front end's conversion into the VAE's domain: decibels as they are, bands as they are"""
    mode_share: float = 1.0
    """share of the posterior's mode in the latent; the rest is a sample of it"""
    limiter: str = "none"
    """of the latent's standard deviation: none, strict, loose or balanced (ddcm.pipeline.limiter)"""
    high_lift: bool = False
    """raise the mel's high bands where the VAE lost more than a tenth of them (ddcm.backbone.vocoding)"""
    vocoder: str = "backbone"
    """backbone, refined, direct, griffin-lim; or several with commas: each is tried when the one before fails"""
    after: str = "none"
    """none; or some of volume, filter, gentle, protect, limit with commas, in that order (ddcm.audio.postprocess)"""
    quantizer: str = "none"
    """none; hard: each cell its nearest atom; soft: a mixture of atoms"""
    temperature: float = 1.0
    """of the soft mixture: weights are softmax(-distance / temperature); 0 is the nearest atom"""
    acts_on: str = "input"
    """where the codebook acts: input, estimates (each x0), late-estimates (last half of the steps), output"""
    strength: float = 0.0
    """share of the noise schedule that the input is taken up, in [0, 1]"""
    solver: str = "ddim"
    """ddim, dpm++ or unipc"""
    steps: int = 50
    """denoising steps of the whole schedule; strength takes its share of them"""
    guidance_scale: float = 3.5
    """of classifier-free guidance; without a prompt there is none"""
    n: int = 1
    """candidates; with a prompt the best by CLAP score comes first"""

    def __post_init__(self):
        for name, known in CHOICES.items():
            value = getattr(self, name)
            for each in value.split(",") if name in CHAINS else [value]:
                if each not in known:
                    raise UserError(f"{name} {each!r} is not known; use one of: {', '.join(known)}")
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if math.isnan(value) or not least <= value <= most:
                nearest = least if math.isnan(value) else min(most, max(least, value))
                raise UserError(f"{name} {value} is outside [{least}, {most}]; the nearest valid one is {nearest:g}")


# Behind each name: its medians over the pocket's validation clips, by ``python -m benchmarks.recipes --stamp``, whose
# page, docs/recipes.md, has them by kind of audio.
RECIPES: dict[str, Recipe] = {
    "matched": Recipe(  # log_mel_mae_db 2.39, hf_ratio_db -1.76
        "reconstruct", "mel, VAE and vocoder as they were trained, nothing quantised",
    ),
    "quantised": Recipe(  # log_mel_mae_db 2.64, hf_ratio_db -1.95
        "reconstruct", "as matched, every cell replaced by its nearest atom", quantizer="hard",
    ),
    "ultimate-fix": Recipe(  # log_mel_mae_db 3.38, hf_ratio_db -0.83
        "reconstruct", "CLAP's features, limited latent, a chain of vocoders, volume match and filter",
        features="clap", limiter="strict", vocoder="backbone,direct,griffin-lim", after="volume,filter",
    ),
    "v3-balanced": Recipe(  # log_mel_mae_db 3.27, hf_ratio_db 0.20
        "reconstruct", "as ultimate-fix, the latent 70 % mode and 30 % sample",
        features="clap", mode_share=0.7, limiter="strict", after="volume",
    ),
    "v4-high-freq": Recipe(  # log_mel_mae_db 2.90, hf_ratio_db -0.41
        "reconstruct", "features down to 0 Hz and 120 dB, a looser limit, high bands lifted",
        features="librosa-high", limiter="loose", high_lift=True,
    ),
    "v5-high-freq": Recipe(  # log_mel_mae_db 2.92, hf_ratio_db -0.01
        "reconstruct", "as v4-high-freq, with a filter that protects the high band",
        features="librosa-high", limiter="loose", high_lift=True, after="protect",
    ),
    "final-optimized": Recipe(  # log_mel_mae_db 3.11, hf_ratio_db -1.13
        "reconstruct", "CLAP's features, mixed latent, balanced limit and balanced finish",
        features="clap", mode_share=0.7, limiter="balanced", after="volume,gentle,limit",
    ),
    "critical-fix": Recipe(  # log_mel_mae_db 3.14, hf_ratio_db -1.45
        "reconstruct", "a plain mel, a sampled latent, a peak limit and nothing else",
        features="plain", mode_share=0.0, after="limit",
    ),
    "input-based": Recipe(  # log_mel_corr 0.98, 0.97, 0.92, 0.81, 0.46, at strength 0.1, 0.3, 0.5, 0.7, 0.9
        "transform",
        "the input's latent is quantised, noised to strength and denoised under the prompt",
        quantizer="hard", vocoder="refined", strength=0.5, solver="dpm++", steps=25,
    ),
    "improved": Recipe(  # log_mel_corr 0.36, clap_score 0.11
        "generate", "few steps; in their last half each estimate becomes a soft mixture of atoms",
        quantizer="soft", acts_on="late-estimates", vocoder="refined", strength=1.0, solver="unipc", steps=20,
    ),
    "final": Recipe(  # log_mel_corr 0.36, clap_score 0.48
        "generate", "standard DDIM; the final latent becomes its nearest atoms",
        quantizer="hard", acts_on="output", vocoder="refined", strength=1.0, steps=50,
    ),
    "complete": Recipe(  # log_mel_corr 0.36, clap_score 0.46
        "generate", "200 steps, every estimate its nearest atoms",
        quantizer="hard", acts_on="estimates", vocoder="refined", strength=1.0, steps=200,
    ),
    "full-diffusion": Recipe(  # log_mel_corr 0.39, clap_score 0.52
        "generate", "200 steps without a codebook, the best of three by CLAP score",
        vocoder="refined", strength=1.0, steps=200, n=3,
    ),
}  # fmt: skip
DEFAULTS = {"reconstruct": "matched", "transform": "input-based", "generate": "improved"}
RUNS = {"reconstruct": ("reconstruct",), "transform": ("transform", "generate"), "generate": ("generate",)}
"""Recipes of which verbs a verb can run: what starts from noise can start from a noised input instead."""


def resolve(verb: str, name: str | None = None, **flags) -> Recipe:
    """The recipe ``name`` (or the verb's default) with every flag that is not None in its place.

    Raises:
        UserError: unknown recipe, a recipe of another verb, or a value out of range.
    """
    name = name or DEFAULTS[verb]
    mine = [key for key, recipe in RECIPES.items() if recipe.verb in RUNS[verb]]
    if name not in RECIPES:
        close = get_close_matches(name, mine, n=1, cutoff=0.0)[0]
        raise UserError(f"recipe {name!r} is not known; the nearest is {close!r} (all: ddcm recipes)")
    if name not in mine:
        raise UserError(f"recipe {name!r} is for {RECIPES[name].verb}; {verb} has: {', '.join(mine)}")
    known = {field.name for field in fields(Recipe)}
    unknown = set(flags) - known
    if unknown:
        raise TypeError(f"not a setting of a recipe: {', '.join(sorted(unknown))}")
    return replace(RECIPES[name], **{key: value for key, value in flags.items() if value is not None})


def list_settings(recipe: Recipe) -> dict[str, object]:
    """What of a recipe matters for its verb: the settings that it names, and those that its verb always has."""
    always = {"reconstruct": ("features", "vocoder"), "transform": ("strength", "solver", "steps", "guidance_scale")}
    always["generate"] = always["transform"]
    shown = {}
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if field.name not in ("verb", "about") and (value != field.default or field.name in always[recipe.verb]):
            shown[field.name] = value
    return shown


NEEDS: dict[str, tuple[str, str]] = {
    "fast": ("ultimate-fix", "quick and steady, with a fallback behind every step"),
    "high-frequency": ("v5-high-freq", "made to keep the high band"),
    "transformation": ("input-based", "follows its input, by a strength that you choose"),
    "quality": ("full-diffusion", "all steps, nothing quantised, the best of several"),
    "research": ("improved", "soft quantisation inside the diffusion"),
    "production": ("final-optimized", "one steady path and a limited output"),
}
"""need -> (recipe, why)"""
KINDS: dict[str, tuple[str, str]] = {
    "music": ("v5-high-freq", "ultimate-fix"),
    "electronic": ("input-based", "ultimate-fix"),
    "speech": ("ultimate-fix", "final-optimized"),
    "ambient": ("full-diffusion", "improved"),
    "effects": ("ultimate-fix", "critical-fix"),
}
"""kind of audio -> (first choice, second choice)"""
MEASURED = "matched"  # what has the least error on every kind; docs/recipes.md has the table


def advise(what: str) -> list[tuple[str, str]]:
    """(recipe, why) for a need or a kind of audio, the first choice first; ``matched`` last, as the measured one.

    The choices are those of the scripts that the recipes come from, made by ear.

    Raises:
        UserError: neither a need nor a kind.
    """
    if what in NEEDS:
        found = [NEEDS[what]]
    elif what in KINDS:
        first, second = KINDS[what]
        found = [(first, f"first choice for {what}"), (second, f"second choice for {what}")]
    else:
        known = [*KINDS, *NEEDS]
        close = get_close_matches(what, known, n=1, cutoff=0.0)[0]
        raise UserError(f"--for {what!r} is not known; the nearest is {close!r} (all: {', '.join(known)})")
    return [*found, (MEASURED, "least mel error on the validation clips, whatever the kind (docs/recipes.md)")]
