"""The page: a tab for each verb, settings on the left, what came out on the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ddcm.app import components
from ddcm.app.components import MOVES_CONTROLS, left, right, wire
from ddcm.app.jobs import Desk, sends_itself
from ddcm.app.service import Studio
from ddcm.app.theme import framed
from ddcm.recipes import DEFAULTS

PROGRESS = gr.Progress()
"""As a default it asks Gradio for one of the request's own."""


class Tabs:
    """Each method builds one tab, inside ``gr.Blocks``."""

    def __init__(self, studio: Studio, desk: Desk, examples: Sequence[Path]):
        self.studio, self.desk, self.examples = studio, desk, examples

    def build(self) -> None:
        with gr.Tabs():
            for tab in (self.reconstruct, self.transform, self.generate, self.compress, self.decompress, self.compare):
                with gr.Tab(tab.__name__.capitalize()), gr.Row():
                    tab()

    def reconstruct(self) -> None:
        with left("Through the model and back: what its latents keep of a recording."):
            source = components.source(self.studio, self.examples)
            recipe = components.recipe(self.studio, "reconstruct")
            seed = components.seed()
            run, cancel = components.buttons("Reconstruct")
        with right():
            results = components.results()

        async def reconstruct(audio, recipe, seed, request: gr.Request, progress=PROGRESS):
            def work(folder, on_step):
                return self.studio.reconstruct(folder, on_step, Path(audio), recipe, seed)

            return results.values(await self.desk.do_with(request, progress, audio, work))

        wire(run, cancel, reconstruct, [source, recipe, seed], results.all(), results.picture)

    def transform(self) -> None:
        start = self.studio.chosen("transform", DEFAULTS["transform"])
        with left("A new sound that follows yours: as closely as you like, and towards a prompt if you give one."):
            source = components.source(self.studio, self.examples)
            strength = gr.Slider(
                0, 1, start.strength, step=0.05, label="Strength", info="0 keeps the recording, 1 only its length."
            )
            prompt, negative = components.words()
            with gr.Accordion("More settings", open=False):
                recipe = components.recipe(self.studio, "transform")
                steps, guidance = components.steps(start.steps), components.guidance(start.guidance_scale)
                seed = components.seed()
            run, cancel = components.buttons("Transform")
        with right():
            results = components.results()

        async def transform(
            audio, strength, prompt, negative_prompt, recipe, steps, guidance_scale, seed,
            request: gr.Request, progress=PROGRESS,
        ):  # fmt: skip
            words = {"prompt": prompt, "negative_prompt": negative_prompt, "seed": seed}
            flags = {"strength": strength, "steps": steps, "guidance_scale": guidance_scale}

            def work(folder, on_step):
                return self.studio.transform(folder, on_step, Path(audio), recipe, words, flags)

            return results.values(await self.desk.do_with(request, progress, audio, work))

        def follow(recipe):
            chosen = self.studio.chosen("transform", recipe)
            return chosen.strength, chosen.steps, chosen.guidance_scale

        recipe.input(follow, recipe, [strength, steps, guidance], **MOVES_CONTROLS)
        given = [source, strength, prompt, negative, recipe, steps, guidance, seed]
        wire(run, cancel, transform, given, results.all(), results.picture)

    def generate(self) -> None:
        start = self.studio.chosen("generate", DEFAULTS["generate"])
        with left("From noise to a sound, under a prompt, with the codebook acting where the recipe says."):
            prompt, negative = components.words()
            most = self.studio.limits.max_seconds
            duration = gr.Slider(0.5, most, min(5, most), step=0.5, label="Seconds", info="10 are what it knows best.")
            recipe = components.recipe(self.studio, "generate")
            with gr.Accordion("More settings", open=False):
                steps, guidance = components.steps(start.steps), components.guidance(start.guidance_scale)
                n = gr.Slider(1, 8, start.n, step=1, label="Candidates", info="The best by CLAP score is kept.")
                seed = components.seed()
            run, cancel = components.buttons("Generate")
        with right():
            results = components.results(before=False)

        async def generate(
            prompt, duration_s, negative_prompt, recipe, steps, guidance_scale, n, seed,
            request: gr.Request, progress=PROGRESS,
        ):  # fmt: skip
            words = {"prompt": prompt, "negative_prompt": negative_prompt, "seed": seed}
            flags = {"steps": steps, "guidance_scale": guidance_scale, "n": n}

            def work(folder, on_step):
                return self.studio.generate(folder, on_step, recipe, duration_s, words, flags)

            return results.values(await self.desk.do(request, progress, work))

        def follow(recipe):
            chosen = self.studio.chosen("generate", recipe)
            return chosen.steps, chosen.guidance_scale, chosen.n

        recipe.input(follow, recipe, [steps, guidance, n], **MOVES_CONTROLS)
        given = [prompt, duration, negative, recipe, steps, guidance, n, seed]
        wire(run, cancel, generate, given, results.all(), results.picture)

    def compress(self) -> None:
        with left("A file of about a kilobit a second, from which the model makes the recording again."):
            source = components.source(self.studio, self.examples)
            kbps = gr.Slider(0.25, 4, 1, step=0.05, label="Rate (kbps)", info="More sounds better.")
            listen = gr.Checkbox(True, label="Decode it too, to listen", info="Takes as long again.")
            with gr.Accordion("More settings", open=False):
                steps = gr.Number(
                    0, label="Steps", info="For each 10 s. 0: what is best at the rate.", precision=0, minimum=0
                )
                prompt = gr.Textbox("", label="Prompt", placeholder="what it is; kept in the file", max_length=1000)
                seed = components.seed()
            run, cancel = components.buttons("Compress")
            file = gr.File(label="Compressed file", interactive=False, elem_id="compressed")
        with right():
            results = components.results()

        async def compress(audio, kbps, listen, steps, prompt, seed, request: gr.Request, progress=PROGRESS):
            chosen = {"kbps": kbps, "steps": steps or None, "prompt": prompt, "seed": seed}

            def work(folder, on_step):
                return self.studio.compress(folder, on_step, Path(audio), listen, chosen)

            result = await self.desk.do_with(request, progress, audio, work)
            return [str(result.file), *results.values(result)]

        given = [source, kbps, listen, steps, prompt, seed]
        wire(run, cancel, compress, given, [file, *results.all()], results.picture)

    def decompress(self) -> None:
        with left("Bring a .ddcm file that was made with this backbone and hear what is in it."):
            source = gr.File(label=".ddcm file", file_types=[".ddcm"], type="filepath", elem_id="to-decompress")
            sends_itself(source)
            run, cancel = components.buttons("Decompress")
        with right():
            results = components.results(before=False)

        async def decompress(file, request: gr.Request, progress=PROGRESS):
            def work(folder, on_step):
                return self.studio.decompress(folder, on_step, Path(file))

            return results.values(await self.desk.do_with(request, progress, file, work))

        wire(run, cancel, decompress, [source], results.all(), results.picture)

    def compare(self) -> None:
        with left("Every recipe on one recording, side by side, with metrics. Takes a while; keep it short."):
            source = components.source(self.studio, self.examples)
            prompt, negative = components.words()
            seed = components.seed()
            run, cancel = components.buttons("Compare")
            file = gr.File(label="Report (one page that opens anywhere)", interactive=False)
        with right():
            report = gr.HTML(elem_classes="report")
            with gr.Accordion("All numbers", open=False):
                metrics = gr.JSON(show_label=False)

        async def compare(audio, prompt, negative_prompt, seed, request: gr.Request, progress=PROGRESS):
            words = {"prompt": prompt, "negative_prompt": negative_prompt, "seed": seed}

            def work(folder, on_step):
                return self.studio.compare(folder, on_step, Path(audio), words)

            return await self.desk.do_with(request, progress, audio, work)

        def show(file: Any) -> str:
            return framed(Path(file).read_text(encoding="utf-8"))

        given = [source, prompt, negative, seed]
        event = wire(run, cancel, compare, given, [file, metrics], report)
        event.success(show, file, report, **MOVES_CONTROLS)
