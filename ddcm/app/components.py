"""Controls and results that the tabs share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ddcm.app.jobs import ONE_AT_A_TIME, refuse_urls
from ddcm.app.service import Result, Service
from ddcm.app.theme import render
from ddcm.recipes import DEFAULTS, RECIPES, Verb

NO_WORK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of events that only change the page's own controls."""
WAVE = gr.WaveformOptions(waveform_color="#a5b4fc", waveform_progress_color="#4f46e5", show_recording_waveform=True)


@dataclass(frozen=True)
class Results:
    """The right half of a tab."""

    fields: list[str]
    """Of ``Result``, one for each output; the page's API returns them in this order."""
    outputs: list[Any]
    picture: gr.Image

    def read(self, result: Result) -> list[Any]:
        return [getattr(result, name) for name in self.fields]


def left_column(introduction: str) -> gr.Column:
    column = gr.Column(scale=4, min_width=320)
    with column:
        gr.Markdown(introduction, elem_classes="lead")
    return column


def recording(service: Service, examples: Sequence[Path]) -> gr.Audio:
    """An upload, a recording from the microphone, or one of the examples."""
    limits = f"up to {service.limits.max_seconds:g} s, {service.limits.max_megabytes:g} MB"
    audio = gr.Audio(
        label=f"Recording ({limits})", sources=["upload", "microphone"], type="filepath", buttons=["download"],
        waveform_options=WAVE,
    )  # fmt: skip
    refuse_urls(audio)
    if examples:
        gr.Examples(
            [[str(path)] for path in examples], [audio], label="Or try", example_labels=[p.stem for p in examples],
            api_visibility="private",
        )  # fmt: skip
    return audio


def recipe_dropdown(service: Service, verb: Verb) -> gr.Dropdown:
    """The recipes of a verb, with a line below that says what the chosen one does."""

    def describe(name: str) -> str:
        about = RECIPES[name].about
        return about[0].upper() + about[1:] + "."

    dropdown = gr.Dropdown(service.list_recipes(verb), value=DEFAULTS[verb], label="Recipe")
    about = gr.Markdown(describe(DEFAULTS[verb]), elem_classes="about")
    dropdown.input(describe, dropdown, about, **NO_WORK)
    return dropdown


def link_to_recipe(service: Service, verb: Verb, dropdown: gr.Dropdown, controls: dict[str, Any]) -> None:
    """``controls`` by name of their setting: they take the values of a recipe when it is chosen."""

    def read_settings(recipe: str) -> list[Any]:
        values = [getattr(service.resolve(verb, recipe), name) for name in controls]
        return values if len(values) > 1 else values[0]

    dropdown.input(read_settings, dropdown, list(controls.values()), **NO_WORK)


def prompts() -> tuple[gr.Textbox, gr.Textbox]:
    prompt = gr.Textbox("", label="Prompt", placeholder="what the result is to be; may stay empty", max_length=1000)
    negative = gr.Textbox("", label="Negative prompt", placeholder="what the result is not to be", max_length=1000)
    return prompt, negative


def seed() -> gr.Number:
    return gr.Number(0, label="Seed", info="The same seed gives the same audio.", precision=0, minimum=0)


def steps(value: int) -> gr.Slider:
    return gr.Slider(1, 200, value, step=1, label="Steps", info="More steps take longer.")


def guidance(value: float) -> gr.Slider:
    return gr.Slider(1, 15, value, step=0.5, label="Guidance", info="How strongly the prompt acts.")


def results(before: bool = True) -> Results:
    """The right column; with ``before`` it also plays the input."""

    def player(label: str) -> gr.Audio:
        return gr.Audio(
            label=label, type="filepath", interactive=False, buttons=["download"], waveform_options=WAVE, min_width=240
        )  # fmt: skip

    with right_column():
        with gr.Row():
            players = [player("Before")] if before else []
            audio = player("After" if before else "Result")
        picture = gr.Image(
            label="Spectrograms", show_label=False, type="filepath", interactive=False, elem_classes="picture",
            buttons=["download", "fullscreen"],
        )  # fmt: skip
        metrics = gr.HTML(value={}, html_template=render("tiles.html"))
        with gr.Accordion("Settings used", open=False):
            settings = gr.JSON(show_label=False)
    fields = ["audio", "picture", "metrics", "settings", *(["before"] if before else [])]
    return Results(fields, [audio, picture, metrics, settings, *players], picture)


def right_column() -> gr.Column:
    return gr.Column(scale=7, min_width=420)


def buttons(text: str) -> tuple[gr.Button, gr.Button]:
    with gr.Row():
        run = gr.Button(text, variant="primary", scale=3, elem_id=f"run-{text.lower()}")
        cancel = gr.Button("Cancel", variant="secondary", scale=1, elem_id=f"cancel-{text.lower()}")
    return run, cancel


def connect(
    buttons: tuple[gr.Button, gr.Button], endpoint: Callable[..., Any], inputs: list[Any], outputs: list[Any],
    progress_on: Any,
) -> Any:  # fmt: skip
    """The first button calls ``endpoint``, which the page's API has under the same name; the second one cancels it."""
    run, cancel = buttons
    name = endpoint.__name__
    event = run.click(endpoint, inputs, outputs, api_name=name, show_progress_on=progress_on, **ONE_AT_A_TIME)
    cancel.click(None, cancels=[event], **NO_WORK)
    return event
