"""Run every recipe on one recording and measure the results against it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ddcm.audio.files import limit_to_full_scale, to_mono
from ddcm.evaluation.evaluate_files import measure
from ddcm.evaluation.html_report import Entry
from ddcm.pipeline import DDCMPipeline
from ddcm.pipeline.output import Output
from ddcm.recipes import RECIPES, Recipe, Verb, list_settings, resolve
from ddcm.runtime.memory import measure_cost
from ddcm.runtime.progress import OnStep

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
    """Every reconstruction recipe; those with other features again without the conversion; then ``transform``, and
    every recipe of ``generate``. The first case, ``matched``, is the upper bound of every recipe with the plain
    vocoder. The second case is the upper bound of ``transform``, which refines the vocoder's audio. Without a codebook
    (``quantised`` False) the reconstructions that need one are left out, and the recipes that diffuse do not
    quantise."""
    recipes = {name: recipe for name, recipe in RECIPES.items() if recipe.verb == "reconstruct"}
    plain = [name for name, recipe in recipes.items() if quantised or recipe.quantizer == "none"]
    raw = [name for name, recipe in recipes.items() if recipe.features != "matched"]
    cases = [Case(name, "reconstruct", name) for name in plain]  # matched is the first recipe
    cases += [Case(f"{name}, raw features", "reconstruct", name, {"raw_features": True}) for name in raw]
    unquantised = {} if quantised else {"quantizer": "none"}
    flags = [{"strength": strength} | unquantised for strength in STRENGTHS]
    cases += [Case(f"transform {each['strength']:g}", "transform", "input-based", each) for each in flags]
    generated = [name for name, recipe in RECIPES.items() if recipe.verb == "generate"]
    return cases + [Case(f"generate {name}", "generate", name, unquantised) for name in generated]


def compare(
    pipe: DDCMPipeline, audio: torch.Tensor, conditioning: dict[str, Any] | None = None,
    on_case: Callable[[str, float, int], None] | None = None, steps: int | None = None,
) -> list[Entry]:  # fmt: skip
    """Run every case on audio, as ``to_mono`` takes it, at the backbone's sample rate. The first entry is the input
    itself. A short run before the first case loads the weights, so that times are those of computing alone. What is
    generated is as long as the input, but has no likeness to it: its only metric is the CLAP score, which all entries
    have if there is a prompt.

    Args:
        conditioning: prompt, negative_prompt and seed; a reconstruction uses the seed alone.
        on_case: called before each case and after each of its steps, with its name, its number from 0, to which the
            share of its steps that are done is added, and the number of cases.
        steps: of every recipe that diffuses, in place of its own.
    """
    conditioning, rate = conditioning or {}, pipe.backbone.mel_spec.sample_rate
    audio, prompt = to_mono(audio, rate, rate), conditioning.get("prompt", "")
    cases = list_cases(quantised=pipe.codebook is not None)

    def run(verb: Verb, recipe: Recipe, audio: torch.Tensor, on_step: OnStep | None = None) -> Output:
        inputs: dict[str, Any] = {"recipe": recipe, "on_step": on_step, "seed": conditioning.get("seed", 0)}
        if verb == "reconstruct":
            return pipe.reconstruct(audio, rate, **inputs)
        inputs |= conditioning
        if verb == "transform":
            return pipe.transform(audio, rate, **inputs)
        return pipe.generate(duration_s=len(audio) / rate, **inputs)

    def choose(case: Case, steps: int | None) -> Recipe:
        return resolve(case.verb, case.recipe, steps=None if case.verb == "reconstruct" else steps, **case.flags)

    run(cases[-1].verb, choose(cases[-1], 2), audio[: 2 * rate])
    inputs = measure(audio, audio)
    entries = [Entry("input", {}, audio, inputs, math.nan, math.nan, {})]
    for number, case in enumerate(cases):

        def on_step(done: int, total: int, name: str = case.name, number: int = number) -> None:
            if on_case is not None:
                on_case(name, number + done / total, len(cases))

        on_step(0, 1)
        recipe = choose(case, steps)
        with measure_cost(pipe.backbone.device) as spent:
            out = run(case.verb, recipe, audio, on_step)
        written = limit_to_full_scale(out.audio, case.name)
        metrics = dict.fromkeys(inputs, math.nan) if case.verb == "generate" else measure(audio, written)
        used = {"recipe": case.recipe} | list_settings(recipe)
        entries.append(Entry(case.name, used, written, metrics, spent.seconds, spent.peak_mib, select_info(out)))
    if not prompt:
        return entries
    scores = pipe.backbone.clap_scores([entry.audio for entry in entries], prompt)
    return [
        replace(entry, metrics=entry.metrics | {"clap_score": score})
        for entry, score in zip(entries, scores, strict=True)
    ]


def select_info(out: Output) -> dict[str, Any]:
    """The facts of a run that a report shows: what was really used, and what the codebook did."""
    return {name: value for name, value in out.info.list_used().items() if name in REPORTED}
