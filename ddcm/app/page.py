"""The page: a tab for each verb, with settings on the left and results on the right."""

from dataclasses import dataclass
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import gradio as gr
from jinja2 import Environment, PackageLoader

from ddcm.app.jobs import ONE_AT_A_TIME, Jobs, error_message
from ddcm.app.service import Service
from ddcm.app.sessions import Sessions
from ddcm.recipes import DEFAULTS, RECIPES, SETTINGS, Verb
from ddcm.runtime.files import resolve_shipped

NO_WORK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of events that only change the page's own controls."""
WAVE = gr.WaveformOptions(waveform_color="#a5b4fc", waveform_progress_color="#4f46e5", show_recording_waveform=True)
Whole = partial(gr.Number, 0, precision=0, minimum=0)
Text = partial(gr.Textbox, "", max_length=1000)
CONTROLS: dict[str, partial] = {
    "strength": partial(gr.Slider, 0, 1, step=0.05, label="Strength", info="0 keeps the recording, 1 only its length."),
    "prompt": partial(Text, label="Prompt", placeholder="what the result is to be; may stay empty"),
    "negative_prompt": partial(Text, label="Negative prompt", placeholder="what the result is not to be"),
    "steps": partial(gr.Slider, 1, 200, step=1, label="Steps", info="More steps take longer."),
    "guidance_scale": partial(gr.Slider, 1, 15, step=0.5, label="Guidance", info="How strongly the prompt acts."),
    "n": partial(gr.Slider, 1, 8, step=1, label="Candidates", info="The best by CLAP score is kept."),
    "seed": partial(Whole, label="Seed", info="The same seed gives the same audio."),
    "duration_s": partial(gr.Slider, 0.5, step=0.5, label="Seconds", info="The model was trained on 10 s."),
    "kbps": partial(gr.Slider, 0.25, 4, 1, step=0.05, label="Rate (kbps)", info="Higher rates sound better."),
    "listen": partial(gr.Checkbox, True, label="Decode it too, to listen", info="Takes as long again."),
    "file": partial(gr.File, label=".ddcm file", file_types=[".ddcm"], type="filepath", elem_id="to-decompress"),
    "compress steps": partial(Whole, label="Steps", info="For each 10 s. 0: the best number for the rate."),
    "compress prompt": partial(Text, label="Prompt", placeholder="describes it; kept in the file"),
}
"""Control by the name of its parameter; a verb may have a control of its own for a name."""


@dataclass(frozen=True)
class Tab:
    """Controls by name, in the order of the parameters of the endpoint; and names of ``Result``'s fields, likewise."""

    introduction: str
    controls: str
    more: str = ""  # Controls under "More settings".
    results: str = "audio picture metrics settings"


TABS = {
    "reconstruct": Tab(
        "Through the model and back: what its latents keep of a recording.",
        "audio recipe seed", results="audio picture metrics settings before",
    ),
    "transform": Tab(
        "New audio that follows your recording, as closely as you like, and a prompt if you give one.",
        "audio strength prompt negative_prompt", "recipe steps guidance_scale seed",
        "audio picture metrics settings before",
    ),
    "generate": Tab(
        "From noise to audio, under a prompt. The codebook acts where the recipe says.",
        "prompt duration_s negative_prompt recipe", "steps guidance_scale n seed",
    ),
    "compress": Tab(
        "A file of about a kilobit a second, from which the model makes the recording again.",
        "audio kbps listen", "steps prompt seed", "file audio picture metrics settings before",
    ),
    "decompress": Tab("Bring a .ddcm file that was made with this backbone, and listen to it.", "file"),
    "compare": Tab(
        "Every recipe on one recording, side by side, with metrics. Slow: take a short recording.",
        "audio prompt negative_prompt seed", results="file metrics",
    ),
}  # fmt: skip


def build_page(service: Service, sessions: Sessions) -> gr.Blocks:
    def end_session(request: gr.Request) -> None:
        sessions.end(request.session_hash or "")

    codebook, jobs = service.pipe.codebook, Jobs(sessions)
    atoms = "no codebook" if codebook is None else f"{codebook.quantizer.codebook_size} atoms"
    with gr.Blocks(title="ddcm", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(render("masthead.html", facts=f"{Path(service.pipe.backbone.name).name} · {atoms}"))
        with gr.Tabs():
            for verb in TABS:
                with gr.Tab(verb.capitalize()), gr.Row():
                    _add_tab(service, jobs, verb)
        page.unload(end_session)
    return page.queue(max_size=service.limits.max_waiting, api_open=False)


def render(template: str, **values: object) -> str:
    """A file of ``templates/`` with ``values``, which are escaped."""
    return Environment(loader=PackageLoader("ddcm.app"), autoescape=True).get_template(template).render(values)


def _add_tab(service: Service, jobs: Jobs, verb: Any) -> None:
    """The first button calls ``service.VERB``, which the page's API has under that name; the second one cancels it."""
    tab, outputs = TABS[verb], {}
    with gr.Column(scale=4, min_width=320):
        gr.Markdown(tab.introduction, elem_classes="lead")
        controls = {name: _add_control(service, verb, name) for name in tab.controls.split()}
        if tab.more:
            with gr.Accordion("More settings", open=False):
                controls |= {name: _add_control(service, verb, name) for name in tab.more.split()}
        with gr.Row():
            run = gr.Button(verb.capitalize(), variant="primary", scale=3, elem_id=f"run-{verb}")
            cancel = gr.Button("Cancel", variant="secondary", scale=1, elem_id=f"cancel-{verb}")
        if verb == "compress":
            outputs["file"] = gr.File(label="Compressed file", interactive=False, elem_id="compressed")
        elif verb == "compare":
            outputs["file"] = gr.File(label="Report (one page that opens anywhere)", interactive=False)
    with gr.Column(scale=7, min_width=420):
        if verb == "compare":
            main = gr.HTML(elem_classes="report")
            with gr.Accordion("All numbers", open=False):
                outputs["metrics"] = gr.JSON(show_label=False)
        else:
            outputs |= _add_results("before" in tab.results)
            main = outputs["picture"]
    if "recipe" in controls:
        _fill_from_recipe(service, verb, controls)
    names = tab.results.split()

    async def endpoint(*arguments: Any) -> list[Any]:
        *values, request, progress = arguments
        inputs = dict(zip(controls, values, strict=True))
        result = await jobs.run(request, progress, getattr(service, verb), inputs)
        values = [getattr(result, name) for name in names]
        return [str(value) if isinstance(value, Path) else value for value in values]

    # Gradio reads the names of the API's parameters, and which to pass itself, from the signature.
    parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in [*controls, "request", "progress"]]
    parameters[-1] = parameters[-1].replace(default=gr.Progress())
    endpoint.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    endpoint.__annotations__ = {"request": gr.Request}
    event = run.click(
        endpoint, [*controls.values()], [outputs[name] for name in names], api_name=verb, show_progress_on=main,
        **ONE_AT_A_TIME,
    )  # fmt: skip
    cancel.click(None, cancels=[event], **NO_WORK)
    if verb == "compare":
        event.success(
            lambda file: render("comparison.html", report=Path(file).read_text(encoding="utf-8")),
            outputs["file"], main, **NO_WORK,
        )  # fmt: skip


def _add_control(service: Service, verb: Any, name: str) -> Any:
    if name == "audio":
        return _add_recording(service)
    if name == "recipe":
        return _add_recipes(service, verb)
    if name == "duration_s":
        longest = service.limits.max_seconds
        return CONTROLS[name](maximum=longest, value=min(5, longest))
    control = CONTROLS.get(f"{verb} {name}", CONTROLS[name])
    if verb in DEFAULTS and name in SETTINGS:
        return control(value=getattr(service.resolve(verb), name))
    return _refuse_urls(control()) if name == "file" else control()


def _add_recording(service: Service) -> gr.Audio:
    """An upload, a recording from the microphone, or one of the examples."""
    examples = sorted(resolve_shipped("examples").glob("*.flac"))
    limits = f"up to {service.limits.max_seconds:g} s, {service.limits.max_megabytes:g} MB"
    audio = gr.Audio(
        label=f"Recording ({limits})", sources=["upload", "microphone"], type="filepath", buttons=["download"],
        waveform_options=WAVE,
    )  # fmt: skip
    if examples:
        gr.Examples(
            [[str(path)] for path in examples], [audio], label="Or try", example_labels=[p.stem for p in examples],
            api_visibility="private",
        )  # fmt: skip
    return _refuse_urls(audio)


def _add_recipes(service: Service, verb: Verb) -> gr.Dropdown:
    """The recipes of a verb, with a line below that says what the chosen one does."""

    def describe(name: str) -> str:
        about = RECIPES[name].about
        return about[0].upper() + about[1:] + "."

    dropdown = gr.Dropdown(service.list_recipes(verb), value=DEFAULTS[verb], label="Recipe")
    about = gr.Markdown(describe(DEFAULTS[verb]), elem_classes="about")
    dropdown.input(describe, dropdown, about, **NO_WORK)
    return dropdown


def _fill_from_recipe(service: Service, verb: Verb, controls: dict[str, Any]) -> None:
    """Controls of a recipe's settings take its values when it is chosen."""
    linked = {name: control for name, control in controls.items() if name in SETTINGS}

    def read_settings(recipe: str) -> dict[Any, Any]:
        return {control: getattr(service.resolve(verb, recipe), name) for name, control in linked.items()}

    if linked:
        controls["recipe"].input(read_settings, controls["recipe"], [*linked.values()], **NO_WORK)


def _add_results(before: bool) -> dict[str, Any]:
    """Components by the field of ``Result`` that they show; with ``before`` a player of the input, too."""
    player = partial(
        gr.Audio, type="filepath", interactive=False, buttons=["download"], waveform_options=WAVE, min_width=240
    )  # fmt: skip
    outputs = {}
    with gr.Row():
        if before:
            outputs["before"] = player(label="Before")
        outputs["audio"] = player(label="After" if before else "Result")
    outputs["picture"] = gr.Image(
        label="Spectrograms", show_label=False, type="filepath", interactive=False, elem_classes="picture",
        buttons=["download", "fullscreen"],
    )  # fmt: skip
    outputs["metrics"] = gr.HTML(value={}, html_template=render("tiles.html"))
    with gr.Accordion("Settings used", open=False):
        outputs["settings"] = gr.JSON(show_label=False)
    return outputs


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
