"""What the page can do: each verb from files to files, within limits. Knows nothing of the page."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ddcm.audio.files import read_audio, write_audio
from ddcm.cli.info import inspect
from ddcm.codec.format import read, unpack
from ddcm.errors import UserError
from ddcm.evaluation.compare import compare, select_info
from ddcm.evaluation.metrics import METRICS
from ddcm.evaluation.plots import compute_mel, draw_side_by_side
from ddcm.evaluation.report import render_report, slug
from ddcm.pipeline import DDCMPipeline
from ddcm.pipeline.denoise import OnStep
from ddcm.pipeline.output import Output
from ddcm.recipes import RECIPES, RUNS, Recipe, resolve, settings


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for."""

    max_seconds: float = 60.0
    """of a recording, in and out"""
    max_megabytes: float = 30.0
    """of an upload"""
    max_waiting: int = 32
    """requests that wait for their turn"""
    keep_minutes: float = 60.0
    """that files stay while the page is open; they go at once when it is closed"""

    def __post_init__(self):
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise UserError(f"--{name} {value} must be above 0")


@dataclass
class Result:
    """What a verb left in its folder."""

    audio: Path | None
    before: Path | None = None
    picture: Path | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    """those that were used, and what was noticed"""
    file: Path | None = None


class Studio:
    """A loaded pipeline behind limits. ``source`` is a file to read, ``folder`` takes the results."""

    def __init__(self, pipe: DDCMPipeline, limits: Limits):
        self.pipe, self.limits = pipe, limits
        self.rate = pipe.backbone.mel_spec.sample_rate

    def recipes(self, verb: str) -> list[str]:
        """Names that the verb can run here: without a codebook, not those that are nothing without one."""
        found = [name for name, recipe in RECIPES.items() if recipe.verb in RUNS[verb]]
        if self.pipe.codebook is None and verb == "reconstruct":
            found = [name for name in found if RECIPES[name].quantizer == "none"]
        return found

    def chosen(self, verb: str, recipe: str | None, flags: dict[str, Any] | None = None) -> Recipe:
        return resolve(verb, recipe, **self._flags(flags or {}))

    def reconstruct(self, folder: Path, on_step: OnStep, source: Path, recipe: str, seed: int) -> Result:
        audio = self._hear(source)
        out = self.pipe.reconstruct(audio, self.rate, recipe, int(seed), on_step)
        return self._finished(folder, f"{source.stem}.reconstructed", out, recipe, audio, seed=int(seed))

    def transform(
        self, folder: Path, on_step: OnStep, source: Path, recipe: str, words: dict[str, Any], flags: dict[str, Any]
    ) -> Result:
        audio = self._hear(source)
        out = self.pipe.transform(audio, self.rate, recipe=recipe, on_step=on_step, **words, **self._flags(flags))
        return self._finished(folder, f"{source.stem}.transformed", out, recipe, audio, **words)

    def generate(
        self, folder: Path, on_step: OnStep, recipe: str, duration_s: float, words: dict[str, Any],
        flags: dict[str, Any],
    ) -> Result:  # fmt: skip
        self._check_length(duration_s)
        out = self.pipe.generate(
            duration_s=duration_s, recipe=recipe, on_step=on_step, **words, **self._flags(flags)
        )  # fmt: skip
        return self._finished(folder, slug(words["prompt"] or "unconditional"), out, recipe, None, **words)

    def compress(self, folder: Path, on_step: OnStep, source: Path, listen: bool, chosen: dict[str, Any]) -> Result:
        """``chosen`` as for ``ddcm.codec.encode.Settings``; with ``listen`` the file is decoded too."""
        audio = self._hear(source)
        target = folder / f"{source.stem}.ddcm"
        target.write_bytes(self.pipe.compress(audio, self.rate, on_step, **chosen))
        if not listen:
            return Result(None, self._sound(folder, "before", audio), None, _size(target), inspect(str(target)), target)
        return self._decoded(folder, on_step, target, audio)

    def decompress(self, folder: Path, on_step: OnStep, source: Path) -> Result:
        return self._decoded(folder, on_step, source, None)

    def compare(
        self, folder: Path, on_step: OnStep, source: Path, words: dict[str, Any]
    ) -> tuple[str, dict[str, dict[str, float]]]:
        """The report as one page that needs nothing beside it, and its metrics by name of the case."""
        audio = self._hear(source)
        entries = compare(self.pipe, audio, words, lambda name, number, of: on_step(number, of))
        facts = {"backbone": self.pipe.backbone.name, "prompt": words["prompt"] or "none"}
        target = folder / "report.html"
        target.write_text(render_report(f"{source.name}: every recipe", entries, self.rate, facts), encoding="utf-8")
        return str(target), {entry.name: _told(entry.metrics) for entry in entries}

    def _decoded(self, folder: Path, on_step: OnStep, source: Path, audio: torch.Tensor | None) -> Result:
        stream = unpack(read(source))
        self._check_length(stream.samples / stream.mel[0])
        out = self.pipe.decompress(source.read_bytes(), on_step=on_step)
        result = self._finished(folder, f"{source.stem}.decoded", out, None, audio)
        result.metrics |= _size(source)
        result.settings, result.file = inspect(str(source)), source
        return result

    def _finished(
        self, folder: Path, name: str, out: Output, recipe: str | None, audio: torch.Tensor | None, **said: Any
    ) -> Result:
        sounds = [("Result", out.audio)] if audio is None else [("Before", audio), ("After", out.audio)]
        panels = [(title, compute_mel(sound, self.rate)) for title, sound in sounds]
        draw_side_by_side(folder / "spectrograms.png", panels, self.pipe.backbone.mel_spec)
        if recipe is not None:
            said = {"recipe": recipe} | settings(out.notes["recipe"]) | said | select_info(out)
        metrics = {} if audio is None else {name: judge(audio, out.audio) for name, judge in METRICS.items()}
        if "clap_score" in out.notes:
            metrics["clap_score"] = out.notes["clap_score"]
        return Result(
            self._sound(folder, name, out.audio), None if audio is None else self._sound(folder, "before", audio),
            folder / "spectrograms.png", _told(metrics), said,
        )  # fmt: skip

    def _hear(self, source: Path) -> torch.Tensor:
        return read_audio(source, self.rate, self.limits.max_seconds)

    def _sound(self, folder: Path, name: str, audio: torch.Tensor) -> Path:
        write_audio(folder / f"{name}.wav", audio, self.rate)
        return folder / f"{name}.wav"

    def _check_length(self, seconds: float) -> None:
        if not 0 < seconds <= self.limits.max_seconds:
            raise UserError(f"{seconds:g} s is outside what is done here: up to {self.limits.max_seconds:g} s")

    def _flags(self, flags: dict[str, Any]) -> dict[str, Any]:
        """Without a codebook nothing quantises, as in ``compare``."""
        return flags if self.pipe.codebook is not None else flags | {"quantizer": "none"}


def _size(file: Path) -> dict[str, float]:
    stream, size = unpack(read(file)), file.stat().st_size
    return {"kbps": size / 125 / (stream.samples / stream.mel[0]), "bytes": size}


def _told(metrics: dict[str, float]) -> dict[str, float]:
    """Those that have something to say: NaN is no JSON."""
    return {name: round(value, 4) for name, value in metrics.items() if not math.isnan(value)}
