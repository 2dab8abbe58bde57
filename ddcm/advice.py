"""Which recipe for what: by need and by kind of audio. Names only."""

from __future__ import annotations

from difflib import get_close_matches

from ddcm.errors import UserError

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
