"""Write a comparison as files: .wav files, a table, a sheet of spectrograms, and a page with players."""

import base64
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader

from ddcm.audio.files import encode_audio, write_audio
from ddcm.errors import UserError
from ddcm.evaluation.evaluate_files import write_csv
from ddcm.evaluation.metric_labels import format_value, label, sort_metrics
from ddcm.evaluation.plots import compute_mel, draw_sheet, encode_thumbnail
from ddcm.evaluation.signal_metrics import badness
from ddcm.runtime.files import slug, write_atomically

PAGE_SECONDS = 30  # Audio of each entry on the page; the .wav files are complete.
ALWAYS_SHOWN = 4  # Metrics.
TEMPLATES = Environment(loader=PackageLoader("ddcm.evaluation"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


@dataclass(frozen=True)
class Entry:
    """One row of a comparison."""

    name: str
    settings: dict[str, Any]
    audio: torch.Tensor  # (S,)
    metrics: dict[str, float]
    seconds: float  # Time to compute it, with the weights already loaded.
    peak_mib: float  # Peak memory during that time.
    info: dict[str, Any]  # Facts about the run that are not settings, such as codebook usage.


def check_target(folder: Path, overwrite: bool) -> None:
    """Raises UserError for a file, and for a folder that is not empty unless ``overwrite``."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; -o is the folder of the report")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise UserError(f"{folder} is not empty; --overwrite replaces what an earlier report left there")


def write_report(folder: Path, title: str, entries: list[Entry], sample_rate: int, facts: dict[str, str]) -> None:
    """Write ``NAME.wav`` of every entry, ``metrics.csv``, ``spectrograms.png``, and last ``report.html``. ``facts``
    stand above the table: backbone, codebook, machine."""
    rows = []
    for entry in entries:
        write_audio(folder / f"{slug(entry.name)}.wav", entry.audio, sample_rate)
        costs = {"seconds": entry.seconds, "peak_mib": entry.peak_mib}
        rows.append({"recipe": entry.name} | entry.metrics | costs | {"settings": json.dumps(entry.settings)})
    write_csv(folder / "metrics.csv", rows)
    draw_sheet(folder / "spectrograms.png", [(entry.name, compute_mel(entry.audio, sample_rate)) for entry in entries])
    text = render_report(title, entries, sample_rate, facts)
    with write_atomically(folder / "report.html") as temporary:
        temporary.write_text(text, encoding="utf-8")


def render_report(title: str, entries: list[Entry], sample_rate: int, facts: dict[str, str]) -> str:
    """The report as one HTML page. Audio, pictures, style and script are embedded; the page fetches nothing. Of the
    metrics that have values, the first ``ALWAYS_SHOWN`` by importance are shown, and the rest at a click."""
    known = {name for entry in entries[1:] for name, value in entry.metrics.items() if not math.isnan(value)}
    names = sort_metrics(name for name in entries[0].metrics if name in known)
    columns = [*names[:ALWAYS_SHOWN], "seconds", *names[ALWAYS_SHOWN:], "peak_mib"]
    values = [
        [(e.metrics | {"seconds": e.seconds, "peak_mib": e.peak_mib}).get(name, math.nan) for name in columns]
        for e in entries
    ]
    best, rows = [], []
    for column, (_, *ranked) in zip(columns, zip(*values, strict=True), strict=True):  # the input is not ranked
        best.append(min((x for x in ranked if not math.isnan(x)), key=partial(badness, column), default=math.nan))
    for entry, row in zip(entries, values, strict=True):
        audio = entry.audio[: PAGE_SECONDS * sample_rate]
        details = entry.settings | {f"used {key}": value for key, value in entry.info.items()}
        rows.append({
            "name": entry.name,
            "audio": data_url("audio/flac", encode_audio(audio, sample_rate, "flac")),
            "picture": data_url("image/png", encode_thumbnail(compute_mel(audio, sample_rate))),
            "details": json.dumps(details, indent=1, default=str) if details else "",
            "cells": [(value, format_value(value), value == top) for value, top in zip(row, best, strict=True)],
        })  # fmt: skip
    truncated = max(len(entry.audio) for entry in entries) > PAGE_SECONDS * sample_rate
    heads = [(name, label(name), index > ALWAYS_SHOWN) for index, name in enumerate(columns)]
    return TEMPLATES.get_template("report.html").render(
        title=title, facts=facts, heads=heads, rows=rows, truncated_s=truncated and PAGE_SECONDS
    )  # fmt: skip


def data_url(kind: str, content: bytes) -> str:
    """Content as an address that a page can embed."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
