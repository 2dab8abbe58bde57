"""A tab for each verb: settings on the left, results on the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from ddcm.app import components as ui
from ddcm.app.jobs import Jobs, refuse_urls
from ddcm.app.service import Service
from ddcm.app.theme import render
from ddcm.recipes import DEFAULTS

PROGRESS = gr.Progress()
"""As a default value it makes Gradio pass the request's own progress bar."""


class Tabs:
    """Each method builds one tab, inside ``gr.Blocks``. The parameters of its endpoint are those of the page's API."""

    def __init__(self, service: Service, jobs: Jobs, examples: Sequence[Path]):
        self.service, self.jobs, self.examples = service, jobs, examples

    def build(self) -> None:
        with gr.Tabs():
            for tab in (self.reconstruct, self.transform, self.generate, self.compress, self.decompress, self.compare):
                with gr.Tab(tab.__name__.capitalize()), gr.Row():
                    tab()

    def reconstruct(self) -> None:
        with ui.left_column("Through the model and back: what its latents keep of a recording."):
            source = ui.recording(self.service, self.examples)
            recipe = ui.recipe_dropdown(self.service, "reconstruct")
            seed = ui.seed()
            buttons = ui.buttons("Reconstruct")
        results = ui.results()

        async def reconstruct(audio, recipe, seed, request: gr.Request, progress=PROGRESS):
            work = self.service.reconstruct
            return results.read(await self.jobs.run_on_file(request, progress, work, audio, recipe, seed))

        ui.connect(buttons, reconstruct, [source, recipe, seed], results.outputs, results.picture)

    def transform(self) -> None:
        start = self.service.resolve("transform", DEFAULTS["transform"])
        with ui.left_column(
            "New audio that follows your recording, as closely as you like, and a prompt if you give one."
        ):
            source = ui.recording(self.service, self.examples)
            strength = gr.Slider(
                0, 1, start.strength, step=0.05, label="Strength", info="0 keeps the recording, 1 only its length."
            )
            prompt, negative = ui.prompts()
            with gr.Accordion("More settings", open=False):
                recipe = ui.recipe_dropdown(self.service, "transform")
                steps, guidance = ui.steps(start.steps), ui.guidance(start.guidance_scale)
                seed = ui.seed()
            buttons = ui.buttons("Transform")
        results = ui.results()

        async def transform(
            audio, strength, prompt, negative_prompt, recipe, steps, guidance_scale, seed,
            request: gr.Request, progress=PROGRESS,
        ):  # fmt: skip
            conditioning = {"prompt": prompt, "negative_prompt": negative_prompt, "seed": seed}
            flags = {"strength": strength, "steps": steps, "guidance_scale": guidance_scale}
            work = self.service.transform
            return results.read(
                await self.jobs.run_on_file(request, progress, work, audio, recipe, conditioning, flags)
            )

        controls = {"strength": strength, "steps": steps, "guidance_scale": guidance}
        ui.link_to_recipe(self.service, "transform", recipe, controls)
        inputs = [source, strength, prompt, negative, recipe, steps, guidance, seed]
        ui.connect(buttons, transform, inputs, results.outputs, results.picture)

    def generate(self) -> None:
        start = self.service.resolve("generate", DEFAULTS["generate"])
        with ui.left_column("From noise to audio, under a prompt. The codebook acts where the recipe says."):
            prompt, negative = ui.prompts()
            longest = self.service.limits.max_seconds
            duration = gr.Slider(
                0.5, longest, min(5, longest), step=0.5, label="Seconds", info="The model was trained on 10 s."
            )
            recipe = ui.recipe_dropdown(self.service, "generate")
            with gr.Accordion("More settings", open=False):
                steps, guidance = ui.steps(start.steps), ui.guidance(start.guidance_scale)
                n = gr.Slider(1, 8, start.n, step=1, label="Candidates", info="The best by CLAP score is kept.")
                seed = ui.seed()
            buttons = ui.buttons("Generate")
        results = ui.results(before=False)

        async def generate(
            prompt, duration_s, negative_prompt, recipe, steps, guidance_scale, n, seed,
            request: gr.Request, progress=PROGRESS,
        ):  # fmt: skip
            conditioning = {"prompt": prompt, "negative_prompt": negative_prompt, "seed": seed}
            flags = {"steps": steps, "guidance_scale": guidance_scale, "n": n}
            work = self.service.generate
            return results.read(await self.jobs.run(request, progress, work, recipe, duration_s, conditioning, flags))

        ui.link_to_recipe(self.service, "generate", recipe, {"steps": steps, "guidance_scale": guidance, "n": n})
        inputs = [prompt, duration, negative, recipe, steps, guidance, n, seed]
        ui.connect(buttons, generate, inputs, results.outputs, results.picture)

    def compress(self) -> None:
        with ui.left_column("A file of about a kilobit a second, from which the model makes the recording again."):
            source = ui.recording(self.service, self.examples)
            kbps = gr.Slider(0.25, 4, 1, step=0.05, label="Rate (kbps)", info="Higher rates sound better.")
            listen = gr.Checkbox(True, label="Decode it too, to listen", info="Takes as long again.")
            with gr.Accordion("More settings", open=False):
                steps = gr.Number(
                    0, label="Steps", info="For each 10 s. 0: the best number for the rate.", precision=0, minimum=0
                )
                prompt = gr.Textbox("", label="Prompt", placeholder="describes it; kept in the file", max_length=1000)
                seed = ui.seed()
            buttons = ui.buttons("Compress")
            file = gr.File(label="Compressed file", interactive=False, elem_id="compressed")
        results = ui.results()

        async def compress(audio, kbps, listen, steps, prompt, seed, request: gr.Request, progress=PROGRESS):
            chosen = {"kbps": kbps, "steps": steps or None, "prompt": prompt, "seed": seed}
            work = self.service.compress
            result = await self.jobs.run_on_file(request, progress, work, audio, listen, chosen)
            return [str(result.file), *results.read(result)]

        inputs = [source, kbps, listen, steps, prompt, seed]
        ui.connect(buttons, compress, inputs, [file, *results.outputs], results.picture)

    def decompress(self) -> None:
        with ui.left_column("Bring a .ddcm file that was made with this backbone, and listen to it."):
            source = gr.File(label=".ddcm file", file_types=[".ddcm"], type="filepath", elem_id="to-decompress")
            refuse_urls(source)
            buttons = ui.buttons("Decompress")
        results = ui.results(before=False)

        async def decompress(file, request: gr.Request, progress=PROGRESS):
            return results.read(await self.jobs.run_on_file(request, progress, self.service.decompress, file))

        ui.connect(buttons, decompress, [source], results.outputs, results.picture)

    def compare(self) -> None:
        with ui.left_column("Every recipe on one recording, side by side, with metrics. Slow: take a short recording."):
            source = ui.recording(self.service, self.examples)
            prompt, negative = ui.prompts()
            seed = ui.seed()
            buttons = ui.buttons("Compare")
            file = gr.File(label="Report (one page that opens anywhere)", interactive=False)
        with ui.right_column():
            report = gr.HTML(elem_classes="report")
            with gr.Accordion("All numbers", open=False):
                metrics = gr.JSON(show_label=False)

        async def compare(audio, prompt, negative_prompt, seed, request: gr.Request, progress=PROGRESS):
            conditioning = {"prompt": prompt, "negative_prompt": negative_prompt, "seed": seed}
            return await self.jobs.run_on_file(request, progress, self.service.compare, audio, conditioning)

        def show(file: str) -> str:
            return render("comparison.html", report=Path(file).read_text(encoding="utf-8"))

        event = ui.connect(buttons, compare, [source, prompt, negative, seed], [file, metrics], report)
        event.success(show, file, report, **ui.NO_WORK)
