"""The page: a tab for each verb, with settings on the left and results on the right."""

from dataclasses import asdict, dataclass
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import gradio as gr
from jinja2 import Environment, PackageLoader

from ddcm.app.controls import NO_WORK, WAVE, add_control, fill_from_recipe
from ddcm.app.jobs import ONE_AT_A_TIME, Jobs
from ddcm.app.service import Service
from ddcm.app.sessions import Sessions
from ddcm.evaluation.html_report import data_url
from ddcm.evaluation.metric_labels import LABELS

PREVIEW_POLL_S = 0.5
SHOW_RESULTS = """() => {
  const results = [...document.querySelectorAll(".results")].find(e => e.offsetParent);
  if (innerWidth <= 640) setTimeout(() => results?.scrollIntoView({behavior: "smooth"}), 300);
}"""
"""On a phone the results are below the settings. The players need a moment to get their height."""


@dataclass(frozen=True)
class Tab:
    """Controls by name, in the order of the parameters of the endpoint; and names of ``Result``'s fields, likewise."""

    introduction: str
    controls: str
    more: str = ""  # Controls under "More settings".
    results: str = "audio picture metrics settings"
    previews: bool = False  # Whether the verb shows estimates while it runs.


TABS = {
    "reconstruct": Tab(
        "Through the model and back: what its latents keep of a recording.",
        "audio recipe seed", results="audio picture metrics settings before",
    ),
    "transform": Tab(
        "New audio that follows your recording, as closely as you like, and a prompt if you give one.",
        "audio strength prompt negative_prompt", "recipe steps guidance_scale seed",
        "audio picture metrics settings before", previews=True,
    ),
    "generate": Tab(
        "From noise to audio, under a prompt. The codebook acts where the recipe says.",
        "prompt duration_s negative_prompt recipe", "steps guidance_scale n seed", previews=True,
    ),
    "compress": Tab(
        "A file of about a kilobit a second, from which the model makes the recording again.",
        "audio kbps listen", "steps prompt seed", "file audio picture metrics settings before",
    ),
    "decompress": Tab("Bring a .ddcm file that was made with this backbone, and listen to it.", "file"),
    "compare": Tab(
        "Every recipe on one recording, side by side, with metrics. Slow: take a short recording.",
        "audio prompt negative_prompt", "steps seed", results="file metrics",
    ),
}  # fmt: skip


def build_page(service: Service, sessions: Sessions) -> gr.Blocks:
    def end_session(request: gr.Request) -> None:
        sessions.end(request.session_hash or "")

    jobs = Jobs(sessions)
    with gr.Blocks(title="ddcm", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(render("masthead.html", facts=" · ".join(service.describe_model())))
        with gr.Tabs():
            for verb in TABS:
                with gr.Tab(verb.capitalize(), elem_id=f"tab-{verb}"), gr.Row():
                    _add_tab(service, jobs, verb)
        page.unload(end_session)
    return page.queue(max_size=service.limits.max_waiting, api_open=False)


def render(template: str, **values: object) -> str:
    """A file of ``templates/`` with ``values``, which are escaped."""
    return Environment(loader=PackageLoader("ddcm.app"), autoescape=True).get_template(template).render(values)


def _add_tab(service: Service, jobs: Jobs, verb: Any) -> None:
    """The first button calls ``service.VERB``, which the page's API has under that name; the second one cancels it."""
    tab = TABS[verb]
    with gr.Column(scale=4, min_width=320):
        gr.Markdown(tab.introduction, elem_classes="lead")
        controls = {name: add_control(service, verb, name) for name in tab.controls.split()}
        if tab.more:
            with gr.Accordion("More settings", open=False):
                controls |= {name: add_control(service, verb, name) for name in tab.more.split()}
        with gr.Column(elem_classes="run", elem_id=f"bar-{verb}"):
            preview = gr.HTML("", elem_classes="preview")
            status = gr.HTML("", elem_classes="status", elem_id=f"status-{verb}")
            with gr.Row():
                run = gr.Button(verb.capitalize(), variant="primary", scale=3, elem_id=f"run-{verb}", min_width=120)
                cancel = gr.Button("Cancel", variant="secondary", scale=1, elem_id=f"cancel-{verb}", min_width=80)
    with gr.Column(scale=7, min_width=320, elem_classes="results"):
        outputs = _add_comparison() if verb == "compare" else _add_results(tab.results.split(), verb)
    if "recipe" in controls:
        fill_from_recipe(service, verb, controls)
    names = tab.results.split()

    async def endpoint(*arguments: Any) -> list[Any]:
        *values, request, progress = arguments
        inputs = dict(zip(controls, values, strict=True))
        result = await jobs.run(request, progress, getattr(service, verb), inputs, tab.previews)
        values = [getattr(result, name) for name in names]
        return [str(value) if isinstance(value, Path) else value for value in values]

    # Gradio reads the names of the API's parameters, and which to pass itself, from the signature.
    parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in [*controls, "request", "progress"]]
    parameters[-1] = parameters[-1].replace(default=gr.Progress())
    endpoint.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    endpoint.__annotations__ = {"request": gr.Request}
    timer = gr.Timer(PREVIEW_POLL_S, active=False)
    if tab.previews:  # before the work: the browser waits for one event of a click after the other
        run.click(lambda: gr.Timer(active=True), None, timer, **NO_WORK)
    event = run.click(
        endpoint, [*controls.values()], [outputs[name] for name in names], api_name=verb, show_progress_on=status,
        **ONE_AT_A_TIME,
    )  # fmt: skip
    if tab.previews:
        _show_previews(jobs, event, cancel, timer, preview)
    cancel.click(None, cancels=[event], **NO_WORK)
    done = event.success(None, js=SHOW_RESULTS, **NO_WORK)
    if verb == "compare":
        done.success(
            lambda file: render("comparison.html", report=Path(file).read_text(encoding="utf-8")),
            outputs["file"], outputs["report"], **NO_WORK,
        )  # fmt: skip


def _show_previews(jobs: Jobs, event: Any, cancel: gr.Button, timer: gr.Timer, preview: gr.HTML) -> None:
    """While the work runs, the browser asks for its latest estimate."""

    def show_latest(request: gr.Request) -> Any:
        latest = jobs.take_preview(request.session_hash or "")
        if latest is None:
            return gr.skip()
        return render("preview.html", step=latest[0], picture=data_url("image/png", latest[1]))

    def stop() -> tuple[gr.Timer, str]:
        return gr.Timer(active=False), ""

    timer.tick(show_latest, None, preview, **NO_WORK)
    event.then(stop, None, [timer, preview], **NO_WORK)
    cancel.click(stop, None, [timer, preview], **NO_WORK)


def _add_comparison() -> dict[str, Any]:
    outputs = {
        "file": gr.File(label="Report (one page that opens anywhere)", interactive=False, elem_classes="file-result")
    }
    outputs["report"] = gr.HTML(elem_classes="report")
    with gr.Accordion("All numbers", open=False):
        outputs["metrics"] = gr.JSON(show_label=False)
    return outputs


def _add_results(names: list[str], verb: str) -> dict[str, Any]:
    """Components by the field of ``Result`` that they show."""
    player = partial(
        gr.Audio, type="filepath", interactive=False, buttons=["download"], waveform_options=WAVE, min_width=240
    )  # fmt: skip
    outputs = {}
    if "file" in names:
        outputs["file"] = gr.File(
            label="Compressed file", interactive=False, elem_id="compressed", elem_classes="file-result"
        )
    with gr.Row():
        if "before" in names:
            outputs["before"] = player(label="Before")
        outputs["audio"] = player(label="After" if "before" in names else "Result")
    outputs["picture"] = gr.Image(
        label="Spectrograms", show_label=False, type="filepath", interactive=False, elem_classes="picture",
        buttons=["download", "fullscreen"],
    )  # fmt: skip
    labels = [(name, asdict(label)) for name, label in LABELS.items()]
    outputs["metrics"] = gr.HTML(value={}, html_template=render("tiles.html", labels=labels))
    with gr.Accordion("Settings used", open=False):
        outputs["settings"] = gr.JSON(show_label=False)
    return outputs
