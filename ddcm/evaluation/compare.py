"""Every recipe on one recording, measured against it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ddcm.evaluation.folder import measure
from ddcm.evaluation.report import Entry
from ddcm.pipeline import DDCMPipeline
from ddcm.pipeline.output import Output
from ddcm.recipes import RECIPES, resolve, settings
from ddcm.runtime.memory import cost

STRENGTHS = (0.3, 0.6, 0.9)


@dataclass(frozen=True)
class Case:
    """One line of the comparison."""

    name: str
    verb: str
    recipe: str
    flags: dict[str, Any] = field(default_factory=dict)


def cases(quantised: bool = True, strengths: tuple[float, ...] = STRENGTHS) -> list[Case]:
    """Every reconstruction recipe, those with other features also without the conversion, then ``transform``.

    The first one, ``matched``, is the ceiling of all that use the plain vocoder; the second one that of ``transform``,
    whose vocoder is refined. Without a codebook (``quantised`` False) what needs one is left out, or runs without.
    """
    found = [Case("matched", "reconstruct", "matched"),
             Case("matched, refined", "reconstruct", "matched", {"vocoder": "refined"})]  # fmt: skip
    for name, recipe in RECIPES.items():
        if recipe.verb == "reconstruct" and name != "matched" and (quantised or recipe.quantizer == "none"):
            found.append(Case(name, "reconstruct", name))
    for name, recipe in RECIPES.items():
        if recipe.verb == "reconstruct" and recipe.features != "matched":
            found.append(Case(f"{name}, raw features", "reconstruct", name, {"raw_features": True}))
    without = {} if quantised else {"quantizer": "none"}
    for strength in strengths:
        flags = {"strength": strength} | without
        found.append(Case(f"transform {strength:g}", "transform", "input-based", flags))
    return found


def run(case: Case, pipe: DDCMPipeline, audio: torch.Tensor, sample_rate: int, words: dict[str, Any]) -> Output:
    """``words`` are prompt, negative_prompt and seed; a reconstruction takes the seed alone."""
    if case.verb == "reconstruct":
        return pipe.reconstruct(audio, sample_rate, case.recipe, seed=words.get("seed", 0), **case.flags)
    return pipe.transform(audio, sample_rate, recipe=case.recipe, **words, **case.flags)


def compare(
    pipe: DDCMPipeline, audio: torch.Tensor, words: dict[str, Any] | None = None,
    on_case: Callable[[str, int, int], None] | None = None,
) -> list[Entry]:  # fmt: skip
    """Every case on audio (S,) at the backbone's rate; the input itself comes first.

    Weights are loaded, and every shape has been met once, before anything is timed.
    """
    words, rate = words or {}, pipe.backbone.mel_spec.sample_rate
    todo = cases(quantised=pipe.codebook is not None)
    warm = Case("", "transform", "input-based", todo[-1].flags | {"steps": 2})
    run(warm, pipe, audio[: 2 * rate], rate, words)
    entries = [Entry("input", {}, audio, measure(audio, audio), math.nan, math.nan, {})]
    for number, case in enumerate(todo):
        if on_case is not None:
            on_case(case.name, number, len(todo))
        with cost(pipe.backbone.device) as spent:
            out = run(case, pipe, audio, rate, words)
        chosen = settings(resolve(case.verb, case.recipe, **case.flags))
        entries.append(
            Entry(case.name, {"recipe": case.recipe} | chosen, out.audio, measure(audio, out.audio),
                  spent.seconds, spent.peak_mib, noticed(out))
        )  # fmt: skip
    return entries


def noticed(out: Output) -> dict[str, Any]:
    """What a reader of the report wants of the notes: what was really used, and what the codebook did."""
    names = ("features", "vocoder", "vocoder_failed", "high_lift", "usage", "perplexity", "clap_score", "unet_steps")
    return {name: out.notes[name] for name in names if name in out.notes}
