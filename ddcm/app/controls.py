"""Inputs of the page: sliders, prompts, uploads that are checked at once, and seeds that can be drawn."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from ddcm.app.jobs import describe_to_visitor, error_message
from ddcm.app.service import Service
from ddcm.errors import UserError
from ddcm.recipes import DEFAULTS, RECIPES, SETTINGS, Verb
from ddcm.runtime.files import resolve_shipped

NO_WORK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of events that only change the page's own controls."""
WAVE = gr.WaveformOptions(waveform_color="#a5b4fc", waveform_progress_color="#4f46e5", show_recording_waveform=True)
PROMPTS = (
    "game music, menu", "an acoustic drum kit, snare", "a woman speaks English", "bubbles under water",
    "game sound effect, explosion",
)  # fmt: skip
DRAW_SEED = "() => Math.floor(Math.random() * 2 ** 31)"
Whole = partial(gr.Number, precision=0, minimum=0)
Text = partial(gr.Textbox, "", max_length=1000)
CONTROLS: dict[str, partial] = {
    "strength": partial(gr.Slider, 0, 1, step=0.05, label="Strength", info="0 keeps the recording, 1 only its length."),
    "prompt": partial(Text, label="Prompt", placeholder="what it is to be, or nothing"),
    "negative_prompt": partial(Text, label="Negative prompt", placeholder="what it is not to be"),
    "steps": partial(gr.Slider, 1, 200, step=1, label="Steps", info="More steps take longer."),
    "guidance_scale": partial(gr.Slider, 1, 15, step=0.5, label="Guidance", info="How strongly the prompt acts."),
    "n": partial(gr.Slider, 1, 8, step=1, label="Candidates", info="The best by CLAP score is kept."),
    "seed": partial(Whole, 0, label="Seed", info="The same seed gives the same audio."),
    "duration_s": partial(gr.Slider, 0.5, step=0.5, label="Seconds", info="The model was trained on 10 s."),
    "kbps": partial(gr.Slider, 0.25, 4, 1, step=0.05, label="Rate (kbps)", info="Higher rates sound better."),
    "listen": partial(gr.Checkbox, True, label="Decode it too, to listen", info="Takes as long again."),
    "compress steps": partial(Whole, 0, label="Steps", info="For each 10 s. 0: the best number for the rate."),
    "compare steps": partial(
        Whole, 10, label="Steps", info="Of recipes that diffuse. 0: each recipe's own, far slower."
    ),
    "compress prompt": partial(Text, label="Prompt", placeholder="describes it; kept in the file"),
}
"""Control by the name of its parameter; a verb may have a control of its own for a name."""


def add_control(service: Service, verb: Any, name: str) -> Any:
    special: dict[str, Callable[[Service, Any], Any]] = {
        "audio": _add_recording, "file": _add_file, "recipe": _add_recipes, "seed": _add_seed,
    }  # fmt: skip
    if name in special:
        return special[name](service, verb)
    if name == "duration_s":
        longest = service.limits.max_seconds
        return CONTROLS[name](maximum=longest, value=min(5, longest))
    make = CONTROLS.get(f"{verb} {name}", CONTROLS[name])
    has_default = verb in DEFAULTS and name in SETTINGS
    control = make(value=getattr(service.resolve(verb), name)) if has_default else make()
    if name == "prompt" and verb in ("transform", "generate"):
        _add_examples(PROMPTS, control, "Prompts to try")
    return control


def _add_examples(values: Any, control: Any, label: str, names: list[str] | None = None) -> None:
    gr.Examples(
        [[value] for value in values], [control], label=label, example_labels=names, api_visibility="private",
    )  # fmt: skip


def _add_recording(service: Service, verb: Any) -> gr.Audio:
    """An upload, a recording from the microphone, or one of the examples."""
    limits = f"up to {service.limits.max_seconds:g} s, {service.limits.max_megabytes:g} MB"
    audio = gr.Audio(
        label=f"Recording ({limits})", sources=["upload", "microphone"], type="filepath", buttons=["download"],
        waveform_options=WAVE, elem_classes="sound",
    )  # fmt: skip
    examples = sorted(resolve_shipped("examples").glob("*.flac"))
    if examples:
        _add_examples(map(str, examples), audio, "Recordings to try", [path.stem for path in examples])
    for event in (audio.upload, audio.stop_recording):
        _check_at_once(event, audio, service.check_audio)
    return _refuse_urls(audio)


def _add_file(service: Service, verb: Any) -> gr.File:
    file = gr.File(label=".ddcm file", file_types=[".ddcm"], type="filepath", elem_id="to-decompress", height=150)
    _check_at_once(file.upload, file, service.check_file)
    return _refuse_urls(file)


def _check_at_once(event: Any, component: Any, check: Callable[[Path], None]) -> None:
    """Refuse an upload that no verb could use, and empty the component, before the visitor waits for a run."""

    def check_upload(path: str | None) -> None:
        if path is not None:
            try:
                check(Path(path))
            except (UserError, OSError) as error:
                raise error_message(describe_to_visitor(error, [Path(path)])) from error

    quick = NO_WORK | {"queue": True, "concurrency_limit": 4}  # without a queue Gradio does not show errors
    event(check_upload, component, None, **quick).failure(lambda: None, None, component, **NO_WORK)


def _add_seed(service: Service, verb: Any) -> gr.Number:
    with gr.Row(elem_classes="seed"):
        seed = CONTROLS["seed"]()
        dice = gr.Button("⚄ Draw one", size="sm", elem_classes="dice", elem_id=f"dice-{verb}")
    dice.click(None, None, seed, js=DRAW_SEED, **NO_WORK)
    return seed


def _add_recipes(service: Service, verb: Verb) -> gr.Dropdown:
    """The recipes of a verb, with a line below that says what the chosen one does."""

    def describe(name: str) -> str:
        recipe = RECIPES[name]
        return f"{recipe.about[0].upper()}{recipe.about[1:]}. Vocoder: {recipe.vocoder.replace(',', ', ')}."

    dropdown = gr.Dropdown(service.list_recipes(verb), value=DEFAULTS[verb], label="Recipe")
    about = gr.Markdown(describe(DEFAULTS[verb]), elem_classes="about")
    dropdown.input(describe, dropdown, about, **NO_WORK)
    return dropdown


def fill_from_recipe(service: Service, verb: Verb, controls: dict[str, Any]) -> None:
    """Controls of a recipe's settings take its values when it is chosen."""
    linked = {name: control for name, control in controls.items() if name in SETTINGS}

    def read_settings(recipe: str) -> dict[Any, Any]:
        return {control: getattr(service.resolve(verb, recipe), name) for name, control in linked.items()}

    if linked:
        controls["recipe"].input(read_settings, controls["recipe"], [*linked.values()], **NO_WORK)


def _refuse_urls(component: Any) -> Any:
    """Make the component accept uploaded files only: the server fetches nothing from other servers. (A subclass would
    be clearer, but Gradio writes a file beside the source of every subclass.)"""
    move = component.async_move_resource_to_block_cache

    async def move_file(name: str | Path | None) -> str | None:
        if str(name).lower().startswith(("http:", "https:")):
            raise error_message("send the file itself; addresses are not fetched")
        return await move(name)

    component.async_move_resource_to_block_cache = move_file
    return component
