"""What the tabs are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ddcm.app.jobs import ONE_AT_A_TIME, sends_itself
from ddcm.app.service import Result, Studio
from ddcm.app.theme import TILES
from ddcm.recipes import DEFAULTS, RECIPES

MOVES_CONTROLS: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Of events that only move the page's own controls."""
WAVE = gr.WaveformOptions(waveform_color="#a5b4fc", waveform_progress_color="#4f46e5", show_recording_waveform=True)


@dataclass
class Results:
    """The right half of a tab, and the order in which the page's API returns it."""

    audio: gr.Audio
    picture: gr.Image
    metrics: gr.HTML
    settings: gr.JSON
    before: gr.Audio | None

    def all(self) -> list[Any]:
        shown = [self.audio, self.picture, self.metrics, self.settings]
        return shown if self.before is None else [*shown, self.before]

    def values(self, result: Result) -> list[Any]:
        found = [result.audio, result.picture, result.metrics, result.settings]
        return found if self.before is None else [*found, result.before]


def left(lead: str) -> gr.Column:
    column = gr.Column(scale=4, min_width=320)
    with column:
        gr.Markdown(lead, elem_classes="lead")
    return column


def right() -> gr.Column:
    return gr.Column(scale=7, min_width=420)


def source(studio: Studio, examples: Sequence[Path]) -> gr.Audio:
    """A recording to bring, or one of the project's."""
    most = f"up to {studio.limits.max_seconds:g} s, {studio.limits.max_megabytes:g} MB"
    found = gr.Audio(
        label=f"Recording ({most})", sources=["upload", "microphone"], type="filepath", buttons=["download"],
        waveform_options=WAVE,
    )  # fmt: skip
    sends_itself(found)
    if examples:
        gr.Examples(
            [[str(path)] for path in examples], [found], label="Or try", example_labels=[p.stem for p in examples],
            api_visibility="private",
        )  # fmt: skip
    return found


def recipe(studio: Studio, verb: str) -> gr.Dropdown:
    """With a line below it that says what the recipe does."""
    names = studio.recipes(verb)
    found = gr.Dropdown(names, value=DEFAULTS[verb], label="Recipe")
    about = gr.Markdown(_about(DEFAULTS[verb]), elem_classes="about")
    found.input(_about, found, about, **MOVES_CONTROLS)
    return found


def words() -> tuple[gr.Textbox, gr.Textbox]:
    prompt = gr.Textbox("", label="Prompt", placeholder="what it shall be; may stay empty", max_length=1000)
    negative = gr.Textbox("", label="Negative prompt", placeholder="what to stay away from", max_length=1000)
    return prompt, negative


def seed() -> gr.Number:
    return gr.Number(0, label="Seed", info="The same seed gives the same sound.", precision=0, minimum=0)


def steps(value: int) -> gr.Slider:
    return gr.Slider(1, 200, value, step=1, label="Steps", info="More take longer.")


def guidance(value: float) -> gr.Slider:
    return gr.Slider(1, 15, value, step=0.5, label="Guidance", info="How strongly the prompt acts.")


def results(before: bool = True) -> Results:
    with gr.Row():
        first = _player("Before") if before else None
        audio = _player("After" if before else "Result")
    picture = gr.Image(
        label="Spectrograms", show_label=False, type="filepath", interactive=False, elem_classes="picture",
        buttons=["download", "fullscreen"],
    )  # fmt: skip
    metrics = gr.HTML(value={}, html_template=TILES)
    with gr.Accordion("Settings used", open=False):
        settings = gr.JSON(show_label=False)
    return Results(audio, picture, metrics, settings, first)


def buttons(text: str) -> tuple[gr.Button, gr.Button]:
    with gr.Row():
        run = gr.Button(text, variant="primary", scale=3, elem_id=f"run-{text.lower()}")
        cancel = gr.Button("Cancel", variant="secondary", scale=1, elem_id=f"cancel-{text.lower()}")
    return run, cancel


def wire(
    run: gr.Button, cancel: gr.Button, work: Callable[..., Any], inputs: list[Any], outputs: list[Any], shown_on: Any
) -> Any:
    """The button does ``work``, which gives the page's API an endpoint of its name; the other button stops it."""
    event = run.click(work, inputs, outputs, api_name=work.__name__, show_progress_on=shown_on, **ONE_AT_A_TIME)
    cancel.click(None, cancels=[event], **MOVES_CONTROLS)
    return event


def _player(label: str) -> gr.Audio:
    return gr.Audio(
        label=label, type="filepath", interactive=False, buttons=["download"], waveform_options=WAVE, min_width=240
    )  # fmt: skip


def _about(name: str) -> str:
    about = RECIPES[name].about
    return about[0].upper() + about[1:] + "."
