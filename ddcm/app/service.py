"""The verbs of the page, from files to files, within limits. Nothing here depends on Gradio."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ddcm.app.server_options import Limits
from ddcm.audio.files import limit_to_full_scale, read_audio, write_audio
from ddcm.codec.format import describe, read, unpack
from ddcm.errors import UserError
from ddcm.evaluation.compare import compare, select_info
from ddcm.evaluation.html_report import render_report
from ddcm.evaluation.plots import compute_mel, draw_sheet, encode_thumbnail
from ddcm.evaluation.signal_metrics import METRICS
from ddcm.pipeline import DDCMPipeline
from ddcm.pipeline.output import Output
from ddcm.recipes import RECIPES, RUNS, SETTINGS, Recipe, Verb, list_settings, resolve
from ddcm.runtime.files import slug
from ddcm.runtime.progress import OnStep

PREVIEW_S = 1.0
Show = Callable[[int, bytes], None]  # ``show(step, png)``: the spectrogram of an estimate, after so many steps.


@dataclass(frozen=True)
class Result:
    """The files and numbers of one request."""

    audio: Path | None = None
    before: Path | None = None  # The input as the model got it: mono, at its sample rate.
    picture: Path | None = None
    metrics: dict[str, Any] = field(default_factory=dict)  # in a comparison: those of each case by its name
    settings: dict[str, Any] = field(default_factory=dict)  # The settings that were used, and facts about the run.
    file: Path | None = None  # A .ddcm file, or the page of a comparison.


class Service:
    """A loaded pipeline behind limits. A verb reads the file ``audio`` or ``file`` and writes its results into
    ``folder``. ``settings`` are those of the verb in ``DDCMPipeline``: prompts, seed, and settings that override the
    recipe."""

    def __init__(self, pipe: DDCMPipeline, limits: Limits):
        self.pipe, self.limits = pipe, limits
        self.rate = pipe.backbone.mel_spec.sample_rate
        self._unquantised = {} if pipe.codebook is not None else {"quantizer": "none"}

    def describe_model(self) -> list[str]:
        """Backbone, codebook and device, for people."""
        backbone, codebook = self.pipe.backbone, self.pipe.codebook
        atoms = "no codebook" if codebook is None else f"{codebook.quantizer.codebook_size} atoms"
        dtype = str(backbone.dtype).removeprefix("torch.")
        return [Path(backbone.name).name, atoms, f"{backbone.device.type}, {dtype}"]

    def warm_up(self) -> None:
        """Load every part of the model, before a visitor waits for it."""
        out = self.pipe.generate("warm-up", 0.5, recipe=replace(self.resolve("generate"), steps=1))
        self.pipe.reconstruct(out.audio, self.rate, self.resolve("reconstruct"))

    def check_audio(self, audio: Path) -> None:
        """Raises UserError: unreadable as audio, or too long."""
        self._read(audio)

    def check_file(self, file: Path) -> None:
        """Raises UserError: not a .ddcm file, damaged, or too long."""
        describe(file)
        header, _ = unpack(read(file))
        self._check_length(header.seconds)

    def list_recipes(self, verb: Verb) -> list[str]:
        """Names of the recipes that the verb can run. Without a codebook, a reconstruction cannot quantise."""
        names = [name for name, recipe in RECIPES.items() if recipe.verb in RUNS[verb]]
        if self._unquantised and verb == "reconstruct":
            names = [name for name in names if RECIPES[name].quantizer == "none"]
        return names

    def resolve(self, verb: Verb, recipe: str | None = None) -> Recipe:
        """The recipe as the verb runs it; the verb's default one if ``recipe`` is None."""
        return resolve(verb, recipe, **self._unquantised)

    def reconstruct(self, folder: Path, on_step: OnStep, audio: Path, recipe: str, **settings: Any) -> Result:
        sound = self._read(audio)
        out = self.pipe.reconstruct(sound, self.rate, recipe, on_step=on_step, **settings)
        return self._save(folder, f"{audio.stem}.reconstructed", out, _list_used(recipe, out, settings), sound)

    def transform(
        self, folder: Path, on_step: OnStep, audio: Path, recipe: str, show: Show | None = None, **settings: Any
    ) -> Result:
        sound, callback = self._read(audio), self._preview(show)
        settings |= self._unquantised
        out = self.pipe.transform(
            sound, self.rate, recipe=recipe, on_step=on_step, callback_on_step_end=callback, **settings
        )  # fmt: skip
        return self._save(folder, f"{audio.stem}.transformed", out, _list_used(recipe, out, settings), sound)

    def generate(
        self, folder: Path, on_step: OnStep, duration_s: float, recipe: str, show: Show | None = None, **settings: Any
    ) -> Result:
        self._check_length(duration_s)
        settings |= self._unquantised
        out = self.pipe.generate(
            duration_s=duration_s, recipe=recipe, on_step=on_step, callback_on_step_end=self._preview(show), **settings
        )  # fmt: skip
        return self._save(folder, slug(settings["prompt"] or "unconditional"), out, _list_used(recipe, out, settings))

    def compress(self, folder: Path, on_step: OnStep, audio: Path, listen: bool, steps: int, **settings: Any) -> Result:
        """With ``listen`` the file is decoded too. 0 ``steps`` are the best number for the rate."""
        sound, file = self._read(audio), folder / f"{audio.stem}.ddcm"
        file.write_bytes(self.pipe.compress(sound, self.rate, on_step, steps=steps or None, **settings))
        if listen:
            return self._decode(folder, on_step, file, sound)
        before = self._write(folder, "before", sound)
        return Result(before=before, metrics=_measure_size(file), settings=describe(file), file=file)

    def decompress(self, folder: Path, on_step: OnStep, file: Path) -> Result:
        return self._decode(folder, on_step, file)

    def compare(self, folder: Path, on_step: OnStep, audio: Path, steps: int, **conditioning: Any) -> Result:
        """The report is one page that needs no other file. 0 ``steps`` are each recipe's own."""
        sound, report = self._read(audio), folder / "report.html"

        def on_case(name: str, number: float, total: int) -> None:
            on_step(round(100 * number / total), 100)

        entries = compare(self.pipe, sound, conditioning, on_case, steps or None)
        facts = {"backbone": self.pipe.backbone.name, "prompt": conditioning["prompt"] or "none"}
        facts["steps"] = f"{steps} where a recipe diffuses" if steps else "each recipe's own"
        text = render_report(f"{audio.name}: every recipe", entries, self.rate, facts)
        report.write_text(text, encoding="utf-8")
        return Result(metrics={entry.name: _drop_nan(entry.metrics) for entry in entries}, file=report)

    def _preview(self, show: Show | None) -> Callable[..., None] | None:
        """A callback of the pipeline that decodes the estimate of a window and shows it, at most once a second."""
        if show is None:
            return None
        shown_at = -math.inf

        def on_step_end(pipe: DDCMPipeline, step: int, timestep: int, tensors: dict[str, torch.Tensor]) -> None:
            nonlocal shown_at
            if time.monotonic() - shown_at >= PREVIEW_S:
                show(step + 1, encode_thumbnail(pipe.backbone.decode(tensors["latents"][:1])[0, 0].cpu()))
                shown_at = time.monotonic()

        return on_step_end

    def _decode(self, folder: Path, on_step: OnStep, file: Path, audio: torch.Tensor | None = None) -> Result:
        header, _ = unpack(read(file))
        self._check_length(header.seconds)
        out = self.pipe.decompress(file.read_bytes(), on_step=on_step)
        return self._save(folder, f"{file.stem}.decoded", out, describe(file), audio, file)

    def _save(
        self, folder: Path, name: str, out: Output, used: dict[str, Any], audio: torch.Tensor | None = None,
        file: Path | None = None,
    ) -> Result:  # fmt: skip
        """Write the audio and the spectrograms; compare with the input ``audio``, if there is one."""
        written = limit_to_full_scale(out.audio, name)
        signals = [("Result", written)] if audio is None else [("Before", audio), ("After", written)]
        picture = folder / "spectrograms.png"
        panels = [(title, compute_mel(signal, self.rate)) for title, signal in signals]
        draw_sheet(picture, panels, 2, (10 / len(panels), 2.8), 160, self.pipe.backbone.mel_spec)
        metrics = {} if audio is None else {name: metric(audio, written) for name, metric in METRICS.items()}
        if out.info.clap_score is not None:
            metrics["clap_score"] = out.info.clap_score
        if file is not None:
            metrics |= _measure_size(file)
        before = None if audio is None else self._write(folder, "before", audio)
        return Result(self._write(folder, name, written), before, picture, _drop_nan(metrics), used, file)

    def _read(self, source: Path) -> torch.Tensor:
        return read_audio(source, self.rate, self.limits.max_seconds)

    def _write(self, folder: Path, name: str, audio: torch.Tensor) -> Path:
        write_audio(folder / f"{name}.wav", audio, self.rate)
        return folder / f"{name}.wav"

    def _check_length(self, seconds: float) -> None:
        if not 0 < seconds <= self.limits.max_seconds:
            raise UserError(f"{seconds:g} s is outside what is done here: up to {self.limits.max_seconds:g} s")


def _list_used(recipe: str, out: Output, settings: dict[str, Any]) -> dict[str, Any]:
    chosen = {} if out.info.recipe is None else list_settings(out.info.recipe)
    inputs = {name: value for name, value in settings.items() if name not in SETTINGS}
    return {"recipe": recipe} | chosen | inputs | select_info(out)


def _measure_size(file: Path) -> dict[str, float]:
    (header, _), size = unpack(read(file)), file.stat().st_size
    return {"kbps": size / 125 / header.seconds, "bytes": size}


def _drop_nan(metrics: dict[str, float]) -> dict[str, float]:
    """JSON has no NaN."""
    return {name: round(value, 4) for name, value in metrics.items() if not math.isnan(value)}
