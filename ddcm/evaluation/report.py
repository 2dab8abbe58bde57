"""A comparison as files: wavs, a table, a sheet of spectrograms, and one page to listen on."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddcm.audio.files import encode_wav, write_audio
from ddcm.errors import UserError
from ddcm.evaluation.folder import write_csv
from ddcm.evaluation.metrics import BEST
from ddcm.evaluation.page import PAGE
from ddcm.evaluation.plots import mel_of, sheet, thumbnail
from ddcm.runtime.files import whole

PAGE_SECONDS = 30  # of each sound on the page; the wavs beside it are whole


@dataclass
class Entry:
    """One sound of a comparison."""

    name: str
    settings: dict[str, Any]
    audio: torch.Tensor
    """(S,)"""
    metrics: dict[str, float]
    seconds: float
    """To make it, weights already loaded."""
    peak_mib: float
    """Of memory while it was made."""
    notes: dict[str, Any]


def check_target(folder: Path, overwrite: bool) -> None:
    """Refuse a folder with something in it, before anything is computed."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; -o is the folder of the report")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise UserError(f"{folder} is not empty; --overwrite replaces what an earlier report left there")


def write_report(folder: Path, title: str, entries: list[Entry], sample_rate: int, facts: dict[str, str]) -> None:
    """``NAME.wav`` for every entry, ``metrics.csv``, ``spectrograms.png``, and ``report.html``, which comes last.

    ``facts`` are shown above the table: backbone, codebook, machine.
    """
    for entry in entries:
        write_audio(folder / f"{slug(entry.name)}.wav", entry.audio, sample_rate)
    write_csv(folder / "metrics.csv", [_row(entry) for entry in entries])
    sheet(folder / "spectrograms.png", [(entry.name, mel_of(entry.audio, sample_rate)) for entry in entries])
    text = page(title, entries, sample_rate, facts)
    with whole(folder / "report.html") as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(title: str, entries: list[Entry], sample_rate: int, facts: dict[str, str]) -> str:
    """The whole report as one HTML text: sounds, pictures, style and script are inside, nothing is fetched."""
    names = [name for name in entries[0].metrics if any(not math.isnan(e.metrics[name]) for e in entries[1:])]
    columns = [*names, "seconds", "peak_mib"]
    values = [
        [entry.metrics.get(name, math.nan) for name in names] + [entry.seconds, entry.peak_mib] for entry in entries
    ]
    best = [_best(column, [row[i] for row in values[1:]]) for i, column in enumerate(columns)]
    heads = "".join(f'<th aria-sort="none"><button>{html.escape(c)}</button></th>' for c in ["recipe", *columns])
    body = "".join(
        _line(number, entry, row, best, sample_rate)
        for number, (entry, row) in enumerate(zip(entries, values, strict=True))
    )
    longest = max(len(entry.audio) for entry in entries) / sample_rate
    note = (
        f" Sounds are cut to {PAGE_SECONDS} s here; the wavs beside this page are whole."
        if longest > PAGE_SECONDS
        else ""
    )
    listed = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in facts.items())
    return PAGE.format(title=html.escape(title), facts=listed, heads=heads, body=body, note=note)


def _line(number: int, entry: Entry, values: list[float], best: list[float], sample_rate: int) -> str:
    audio = entry.audio[: PAGE_SECONDS * sample_rate]
    sound = _data("audio/wav", encode_wav(audio, sample_rate))
    picture = _data("image/png", thumbnail(mel_of(audio, sample_rate)))
    name = html.escape(entry.name)
    said = entry.settings | {f"used {key}": value for key, value in entry.notes.items()}
    details = html.escape(json.dumps(said, indent=1, default=str)) if said else ""
    cells = "".join(_cell(value, top) for value, top in zip(values, best, strict=True))
    return (
        f'<tr><th scope="row" data-value="{number}"><b>{name}</b>'
        f'<img src="{picture}" alt="log-mel spectrogram of {name}">'
        f'<audio controls preload="metadata" src="{sound}" aria-label="{name}"></audio>'
        + (f"<details><summary>settings</summary><pre>{details}</pre></details>" if details else "")
        + f"</th>{cells}</tr>"
    )


def _cell(value: float, best: float) -> str:
    if math.isnan(value):
        return '<td data-value="">-</td>'
    mark = ' class="best"' if value == best else ""
    shown = f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return f'<td data-value="{value:.9g}"{mark}>{shown}</td>'


def _best(column: str, values: list[float]) -> float:
    told = [value for value in values if not math.isnan(value)]
    if not told:
        return math.nan
    return {"high": max(told), "zero": min(told, key=abs), "low": min(told)}[BEST.get(column, "low")]


def _row(entry: Entry) -> dict[str, Any]:
    costs = {"seconds": entry.seconds, "peak_mib": entry.peak_mib}
    return {"recipe": entry.name} | entry.metrics | costs | {"settings": json.dumps(entry.settings)}


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def slug(text: str, longest: int = 60) -> str:
    """A file name from any text: letters, digits and dots, the rest a dash."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.").lower()[:longest] or "sound"
