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
            ("solver", self.solver, ("ddim", "dpm++")),
        ):
            if value not in known:
                raise UserError(f"{name} {value!r} is not known; use one of: {', '.join(known)}")
        if not 0 <= self.strength <= 1:
            nearest = min(1.0, max(0.0, self.strength))
            raise UserError(f"strength {self.strength} is outside [0, 1]; the nearest valid one is {nearest:g}")
        if self.steps < 1:
            raise UserError(f"steps {self.steps} is less than 1")


RECIPES: dict[str, Recipe] = {
    "matched": Recipe("reconstruct", "mel, VAE and vocoder as they were trained, nothing quantised"),
    "quantised": Recipe("reconstruct", "as matched, every cell replaced by its nearest atom", quantizer="hard"),
    "input-based": Recipe(
        "transform",
        "the input's latent is quantised, noised to strength and denoised under the prompt",
        quantizer="hard", strength=0.5, solver="dpm++", steps=25,
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
