"""Recipes: named settings of the verbs, and which to take for what. Names and numbers; no torch."""

import math
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_type_hints

from ddcm.errors import UserError

Verb = Literal["reconstruct", "transform", "generate"]
Features = Literal["matched", "clap", "librosa", "librosa-high", "plain"]
Limiter = Literal["none", "strict", "loose", "balanced"]
Vocoder = Literal["backbone", "refined", "direct", "griffin-lim"]
Postprocess = Literal["none", "volume", "filter", "gentle", "protect", "limit"]
QuantizerKind = Literal["none", "hard", "soft"]
ActsOn = Literal["input", "estimates", "late-estimates", "output"]
Solver = Literal["ddim", "dpm++", "unipc"]
Dtype = Literal["float32", "float16", "bfloat16"]  # A .ddcm file stores the position in this order.
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
Heads = Literal["hub", "original"]  # head layout of a UNet: as diffusers computes it, or as it was trained
Null = Literal["trained", "stock"]  # condition of no prompt: as in AudioLDM2's training, or in diffusers' pipeline

ALL: tuple[Verb, ...] = get_args(Verb)
WITH_INPUT: tuple[Verb, ...] = ("reconstruct", "transform")
WITH_DIFFUSION: tuple[Verb, ...] = ("transform", "generate")


def _flag(verbs: tuple[Verb, ...], between: tuple[float, float] | None = None, chain: Any = None) -> dict[str, Any]:
    """Metadata of a field that is a flag of ``verbs``. ``between`` is the range of a number. ``chain`` has the names of
    a setting that takes several, with commas."""
    return {"verbs": verbs, "between": between, "chain": chain}


@dataclass(frozen=True)
class Recipe:
    """Settings of the recipe. A flag overrides the recipe, and the recipe overrides these defaults. Raises UserError:
    an unknown choice, or a number out of range."""

    verb: Verb
    about: str
    features: Features = field(default="matched", metadata=_flag(WITH_INPUT))
    """front end: the analysis that makes the mel (ddcm.audio.frontends)"""
    raw_features: bool = field(default=False, metadata=_flag(WITH_INPUT))
    """true: leave out the front end's conversion into the VAE's domain"""
    mode_share: float = field(default=1.0, metadata=_flag(WITH_INPUT, between=(0, 1)))
    """share of the posterior's mode in the latent; the rest is a sample of the posterior"""
    limiter: Limiter = field(default="none", metadata=_flag(WITH_INPUT))
    """limit on the latent's standard deviation (ddcm.pipeline.encode)"""
    high_lift: bool = field(default=False, metadata=_flag(WITH_INPUT))
    """true: raise the mel's high bands where the VAE lost more than a tenth of them (ddcm.backbone.vocoding)"""
    vocoder: str = field(default="backbone", metadata=_flag(ALL, chain=Vocoder))
    """backbone, refined, direct, griffin-lim; or several with commas: each is tried when the one before fails"""
    after: str = field(default="none", metadata=_flag(ALL, chain=Postprocess))
    """none; or some of volume, filter, gentle, protect, limit with commas, in that order (ddcm.audio.postprocess)"""
    quantizer: QuantizerKind = field(default="none", metadata=_flag(ALL))
    """hard: each cell becomes its nearest atom; soft: a mixture of atoms"""
    temperature: float = field(default=1.0, metadata=_flag(ALL, between=(0, math.inf)))
    """of the soft mixture, whose weights are softmax(-distance / temperature); 0 is the nearest atom"""
    acts_on: ActsOn = field(default="input", metadata=_flag(WITH_DIFFUSION))
    """where the codebook acts: the input's latent, each x0 estimate, those of the last half of the steps, the output"""
    strength: float = field(default=0.0, metadata=_flag(("transform",), between=(0, 1)))
    """share of the noise schedule, in [0, 1]: 0 keeps the input, 1 keeps only its length"""
    solver: Solver = field(default="ddim", metadata=_flag(WITH_DIFFUSION))
    """sampler of the diffusion"""
    steps: int = field(default=50, metadata=_flag(WITH_DIFFUSION, between=(1, 1000)))
    """denoising steps of the whole schedule; strength takes its share of them"""
    guidance_scale: float = field(default=3.5, metadata=_flag(WITH_DIFFUSION, between=(-100, 100)))
    """of classifier-free guidance under a prompt; 1 is no guidance"""
    cache_interval: int = field(default=1, metadata=_flag(WITH_DIFFUSION, between=(1, 255)))
    """compute the UNet's deep layers in the first ten steps and then in every N-th: faster, and not the same"""
    n: int = field(default=1, metadata=_flag(WITH_DIFFUSION, between=(1, 100)))
    """candidates, which start from seed, seed + 1, ...; with a prompt, the best by CLAP score comes first"""

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


SETTINGS = {each.name: each for each in fields(Recipe) if each.metadata}
CHAINS = {name: get_args(each.metadata["chain"]) for name, each in SETTINGS.items() if each.metadata["chain"]}
"""Settings that take several names with commas between them."""
CHOICES: dict[str, tuple[str, ...]] = {
    name: names for name, hint in get_type_hints(Recipe).items() if (names := CHAINS.get(name) or get_args(hint))
}
RANGES = {name: each.metadata["between"] for name, each in SETTINGS.items() if each.metadata["between"]}


def list_flags(verb: Verb) -> list[str]:
    """Settings of a recipe that have an effect on the verb: its flags."""
    return [name for name, each in SETTINGS.items() if verb in each.metadata["verbs"]]


# Behind each name: its medians over the pocket's validation clips, by ``python -m benchmarks.recipes --stamp``, whose
# page, docs/recipes.md, has them by kind of audio.
RECIPES: dict[str, Recipe] = {
    "matched": Recipe(  # log_mel_mae_db 1.11, hf_ratio_db -1.23
        "reconstruct", "mel, VAE and vocoder as they were trained, nothing quantised",
    ),
    "refined": Recipe(  # log_mel_mae_db 0.82, hf_ratio_db -0.90
        "reconstruct", "as matched, and the vocoder's audio is corrected towards the mel that it was given",
        vocoder="refined",
    ),
    "quantised": Recipe(  # log_mel_mae_db 1.68, hf_ratio_db -1.33
        "reconstruct", "as matched, every cell replaced by its nearest atom", quantizer="hard",
    ),
    "ultimate-fix": Recipe(  # log_mel_mae_db 2.56, hf_ratio_db -0.30
        "reconstruct", "CLAP's features, limited latent, a chain of vocoders, volume match and filter",
        features="clap", limiter="strict", vocoder="backbone,direct,griffin-lim", after="volume,filter",
    ),
    "v3-balanced": Recipe(  # log_mel_mae_db 2.43, hf_ratio_db 0.38
        "reconstruct", "as ultimate-fix, the latent 70 % mode and 30 % sample",
        features="clap", mode_share=0.7, limiter="strict", after="volume",
    ),
    "v4-high-freq": Recipe(  # log_mel_mae_db 2.17, hf_ratio_db -0.19
        "reconstruct", "features down to 0 Hz and 120 dB, a looser limit, high bands lifted",
        features="librosa-high", limiter="loose", high_lift=True,
    ),
    "v5-high-freq": Recipe(  # log_mel_mae_db 2.19, hf_ratio_db -0.02
        "reconstruct", "as v4-high-freq, with a filter that protects the high band",
        features="librosa-high", limiter="loose", high_lift=True, after="protect",
    ),
    "final-optimized": Recipe(  # log_mel_mae_db 2.55, hf_ratio_db -0.78
        "reconstruct", "CLAP's features, mixed latent, balanced limit and balanced finish",
        features="clap", mode_share=0.7, limiter="balanced", after="volume,gentle,limit",
    ),
    "critical-fix": Recipe(  # log_mel_mae_db 2.05, hf_ratio_db -0.93
        "reconstruct", "a plain mel, a sampled latent, a peak limit and nothing else",
        features="plain", mode_share=0.0, after="limit",
    ),
    "input-based": Recipe(  # log_mel_corr 0.99, 0.96, 0.91, 0.73, 0.28, at strength 0.1, 0.3, 0.5, 0.7, 0.9
        "transform",
        "the input's latent is quantised, noised to strength and denoised under the prompt",
        quantizer="hard", vocoder="refined", strength=0.5, solver="dpm++", steps=25,
    ),
    "improved": Recipe(  # log_mel_corr 0.38, clap_score 0.19
        "generate", "few steps; in their last half each estimate becomes a soft mixture of atoms",
        quantizer="soft", acts_on="late-estimates", vocoder="refined", strength=1.0, solver="unipc", steps=20,
    ),
    "final": Recipe(  # log_mel_corr 0.41, clap_score 0.57
        "generate", "standard DDIM; the final latent becomes its nearest atoms",
        quantizer="hard", acts_on="output", vocoder="refined", strength=1.0, steps=50,
    ),
    "complete": Recipe(  # log_mel_corr 0.40, clap_score 0.60
        "generate", "200 steps, every estimate its nearest atoms",
        quantizer="hard", acts_on="estimates", vocoder="refined", strength=1.0, steps=200,
    ),
    "full-diffusion": Recipe(  # log_mel_corr 0.45, clap_score 0.69
        "generate", "200 steps without a codebook, the best of three by CLAP score",
        vocoder="refined", strength=1.0, steps=200, n=3,
    ),
}  # fmt: skip
DEFAULTS: dict[Verb, str] = {"reconstruct": "refined", "transform": "input-based", "generate": "final"}
RUNS: dict[Verb, tuple[Verb, ...]] = {
    "reconstruct": ("reconstruct",), "transform": ("transform", "generate"), "generate": ("generate",),
}  # fmt: skip
"""Verb -> verbs whose recipes it can run: what starts from noise can start from a noised input instead."""


def resolve(verb: Verb, recipe: str | Recipe | None = None, **flags: Any) -> Recipe:
    """The recipe, by name or the verb's default one, with every flag that is not None in its place. Raises UserError:
    unknown recipe, a recipe of another verb, or a value out of range."""
    own = [key for key, row in RECIPES.items() if row.verb in RUNS[verb]]
    name = recipe or DEFAULTS[verb]
    if isinstance(name, str) and name not in RECIPES:
        close = get_close_matches(name, own, n=1, cutoff=0.0)[0]
        raise UserError(f"recipe {name!r} is not known; the nearest is {close!r} (all: ddcm recipes)")
    chosen = RECIPES[name] if isinstance(name, str) else name
    if chosen.verb not in RUNS[verb]:
        label = repr(name) if isinstance(name, str) else "of your own"
        raise UserError(f"recipe {label} is for {chosen.verb}; {verb} has: {', '.join(own)}")
    if unknown := set(flags) - {each.name for each in fields(Recipe)}:
        raise TypeError(f"not a setting of a recipe: {', '.join(sorted(unknown))}")
    return replace(chosen, **{key: value for key, value in flags.items() if value is not None})


def list_settings(recipe: Recipe) -> dict[str, Any]:
    """Settings of the recipe that differ from the defaults, and those that every recipe of its verb lists."""
    always = {"features", "vocoder"}
    if recipe.verb != "reconstruct":
        always = {"strength", "solver", "steps", "guidance_scale"}
    values = {name: getattr(recipe, name) for name in SETTINGS}
    return {name: value for name, value in values.items() if name in always or value != SETTINGS[name].default}


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
MEASURED_KINDS = ("speech", "music", "percussion", "effects", "all")
MEASURED_DB: dict[str, tuple[float, ...]] = {
    "matched": (1.40, 1.21, 0.99, 0.93, 1.11),
    "refined": (1.05, 0.82, 0.78, 0.75, 0.82),
    "quantised": (2.02, 1.76, 1.55, 1.43, 1.68),
    "ultimate-fix": (3.18, 2.70, 2.11, 1.55, 2.56),
    "v3-balanced": (3.07, 2.47, 2.06, 1.47, 2.43),
    "v4-high-freq": (2.57, 2.40, 1.78, 1.53, 2.17),
    "v5-high-freq": (2.60, 2.43, 1.77, 1.59, 2.19),
    "final-optimized": (3.09, 2.71, 2.09, 1.51, 2.55),
    "critical-fix": (2.40, 1.97, 2.42, 1.53, 2.05),
}  # fmt: skip
"""Recipe -> median log_mel_mae_db over the validation clips of each of ``MEASURED_KINDS``; stamped as above."""


def advise(what: str) -> list[tuple[str, str]]:
    """(recipe, why) for a need or a kind of audio: first what docs/recipes.md measures as best, then the seed
    document's own choices, which were made by ear, with what was measured of them. A kind without clips of its own, and
    a need, are measured by all clips; a need whose recipe does not reconstruct has no such measure. Raises UserError:
    neither a need nor a kind."""
    known = list(dict.fromkeys([*KINDS, *MEASURED_KINDS[:-1], *NEEDS]))
    if what not in known:
        close = get_close_matches(what, known, n=1, cutoff=0.0)[0]
        raise UserError(f"--for {what!r} is not known; the nearest is {close!r} (all: {', '.join(known)})")
    if what in NEEDS:
        choices = [(NEEDS[what][0], f"the seed document's choice for {what}: {NEEDS[what][1]}")]
    else:
        choices = [(name, f"the seed document's {rank} choice for {what}")
                   for rank, name in zip(("first", "second"), KINDS.get(what, ()), strict=False)]  # fmt: skip
    if what in NEEDS and choices[0][0] not in MEASURED_DB:
        return choices
    kind = what if what in MEASURED_KINDS else "all"
    column = {name: values[MEASURED_KINDS.index(kind)] for name, values in MEASURED_DB.items()}
    best = min(column, key=lambda name: column[name])
    of = "all clips" if kind == "all" else f"clips of {kind}"
    ranked = [(best, f"measured as best: log_mel_mae_db {column[best]:.2f} over {of} (docs/recipes.md)")]
    return ranked + [(name, f"{why}; {column[name]:.2f}" if name in column else why) for name, why in choices]
