"""Run every recipe on one recording and measure the results against it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ddcm.audio.files import limit_to_full_scale, to_mono
from ddcm.evaluation.evaluate_files import measure
from ddcm.evaluation.html_report import Entry
from ddcm.pipeline import DDCMPipeline
from ddcm.pipeline.output import Output
from ddcm.recipes import RECIPES, Verb, list_settings, resolve
from ddcm.runtime.memory import measure_cost

STRENGTHS = (0.3, 0.6, 0.9)
REPORTED = ("features", "vocoder", "vocoder_failed", "high_lift", "usage", "perplexity", "clap_score", "unet_steps")


@dataclass(frozen=True)
class Case:
    """One row of the comparison."""

    name: str
    verb: Verb
    recipe: str
    flags: dict[str, Any] = field(default_factory=dict)


def list_cases(quantised: bool = True) -> list[Case]:
    """Every reconstruction recipe; those with other features again without the conversion; then ``transform``. The
    first case, ``matched``, is the upper bound of every recipe with the plain vocoder. The second case is the upper
    bound of ``transform``, which refines the vocoder's audio. Without a codebook (``quantised`` False) the recipes that
    need one are left out, and ``transform`` does not quantise."""
    recipes = {name: recipe for name, recipe in RECIPES.items() if recipe.verb == "reconstruct"}
    plain = [name for name, recipe in recipes.items() if quantised or recipe.quantizer == "none"]
    raw = [name for name, recipe in recipes.items() if recipe.features != "matched"]
    cases = [Case(name, "reconstruct", name) for name in plain]  # matched is the first recipe
    cases += [Case(f"{name}, raw features", "reconstruct", name, {"raw_features": True}) for name in raw]
    unquantised = {} if quantised else {"quantizer": "none"}
    flags = [{"strength": strength} | unquantised for strength in STRENGTHS]
    return cases + [Case(f"transform {each['strength']:g}", "transform", "input-based", each) for each in flags]


def compare(
    pipe: DDCMPipeline, audio: torch.Tensor, conditioning: dict[str, Any] | None = None,
    on_case: Callable[[str, int, int], None] | None = None,
) -> list[Entry]:  # fmt: skip
    """Run every case on audio, as ``to_mono`` takes it, at the backbone's sample rate. The first entry is the input
    itself. A short run before the first case loads the weights, so that times are those of computing alone.
    ``conditioning`` is prompt, negative_prompt and seed; a reconstruction uses the seed alone. ``on_case`` is called
    before each case with its name, its number from 0, and the number of cases."""
    conditioning, rate = conditioning or {}, pipe.backbone.mel_spec.sample_rate
    audio = to_mono(audio, rate, rate)
    seed = {"seed": conditioning.get("seed", 0)}

    def run(case: Case, audio: torch.Tensor, **flags: Any) -> Output:
        inputs = conditioning if case.verb == "transform" else seed
        return getattr(pipe, case.verb)(audio, rate, recipe=case.recipe, **inputs, **case.flags | flags)

    cases = list_cases(quantised=pipe.codebook is not None)
    run(cases[-1], audio[: 2 * rate], steps=2)
    entries = [Entry("input", {}, audio, measure(audio, audio), math.nan, math.nan, {})]
    for number, case in enumerate(cases):
        if on_case is not None:
            on_case(case.name, number, len(cases))
        with measure_cost(pipe.backbone.device) as spent:
            out = run(case, audio)
        used = {"recipe": case.recipe} | list_settings(resolve(case.verb, case.recipe, **case.flags))
        written = limit_to_full_scale(out.audio, case.name)
        metrics = measure(audio, written)
        entries.append(Entry(case.name, used, written, metrics, spent.seconds, spent.peak_mib, select_info(out)))
    return entries


def select_info(out: Output) -> dict[str, Any]:
    """The facts of a run that a report shows: what was really used, and what the codebook did."""
    return {name: value for name, value in out.info.list_used().items() if name in REPORTED}
