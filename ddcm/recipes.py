"""Recipes: named rows of settings. Names and numbers only; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from difflib import get_close_matches

from ddcm.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """How a verb is carried out. A flag overrides the recipe, the recipe overrides these defaults."""

    verb: str
    """reconstruct or transform"""
    about: str
    quantizer: str = "none"
    """none, or hard: the input's latent becomes its nearest atoms"""
    vocoder: str = "backbone"
    """backbone, or refined: the same, then corrected towards the mel that it was given"""
    strength: float = 0.0
    """share of the noise schedule that the input is taken up, in [0, 1]"""
    solver: str = "ddim"
    """ddim or dpm++"""
    steps: int = 50
    """denoising steps of the whole schedule; strength takes its share of them"""
    guidance_scale: float = 3.5
    """of classifier-free guidance; without a prompt there is none"""

    def __post_init__(self):
        for name, value, known in (
            ("quantizer", self.quantizer, ("none", "hard")),
            ("vocoder", self.vocoder, ("backbone", "refined")),
            ("solver", self.solver, ("ddim", "dpm++")),
        ):
            if value not in known:
                raise UserError(f"{name} {value!r} is not known; use one of: {', '.join(known)}")
        if not 0 <= self.strength <= 1:
            nearest = min(1.0, max(0.0, self.strength))
            raise UserError(f"strength {self.strength} is outside [0, 1]; the nearest valid one is {nearest:g}")
        if self.steps < 1:
            raise UserError(f"steps {self.steps} is less than 1")


# Measured on the pocket's validation clips by ``python -m pocket.evaluate`` (table in checkpoints/pocket/README.md).
RECIPES: dict[str, Recipe] = {
    "matched": Recipe(  # log_mel_mae_db 3.95 (2.15 with the refined vocoder)
        "reconstruct", "mel, VAE and vocoder as they were trained, nothing quantised",
    ),
    "quantised": Recipe(  # log_mel_mae_db 3.96
        "reconstruct", "as matched, every cell replaced by its nearest atom", quantizer="hard",
    ),
    "input-based": Recipe(  # log_mel_corr 0.98, 0.95, 0.84, 0.50 at strength 0.1, 0.3, 0.6, 0.9
        "transform",
        "the input's latent is quantised, noised to strength and denoised under the prompt",
        quantizer="hard", vocoder="refined", strength=0.5, solver="dpm++", steps=25,
    ),
}  # fmt: skip
DEFAULTS = {"reconstruct": "matched", "transform": "input-based"}


def resolve(verb: str, name: str | None = None, **flags) -> Recipe:
    """The recipe ``name`` (or the verb's default) with every flag that is not None in its place.

    Raises:
        UserError: unknown recipe, a recipe of another verb, or a value out of range.
    """
    name = name or DEFAULTS[verb]
    mine = [key for key, recipe in RECIPES.items() if recipe.verb == verb]
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
