"""Metrics of a folder of estimates against the recordings that they were made of."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from ddcm.audio.files import find_audio, read_audio
from ddcm.errors import UserError, one_line
from ddcm.evaluation.metrics import METRICS, SAMPLE_RATE, badness
from ddcm.evaluation.perceptual import installed
from ddcm.runtime.files import whole

Row = dict[str, str | float]
SLACK = 640  # samples: what rates and codecs may change in a length


def all_metrics() -> dict[str, Callable[[torch.Tensor, torch.Tensor], float]]:
    """Ours, and those of other packages that are installed."""
    return METRICS | installed()


def measure(reference: torch.Tensor, estimate: torch.Tensor) -> dict[str, float]:
    """Every metric of two 16 kHz signals (S,); NaN where one has nothing to say."""
    return {name: function(reference, estimate) for name, function in all_metrics().items()}


def pairs(references: str | Path, estimates: str | Path) -> list[tuple[str, Path, Path]]:
    """(name, reference, estimate) by relative name without suffix; two files are a pair whatever their names.

    An estimate may keep its reference's suffix before its own, as ``a.mp3.wav`` of ``a.mp3``.

    Raises:
        UserError: a missing folder, a file against a folder, an estimate without reference, nothing to compare.
    """
    references, estimates = Path(references), Path(estimates)
    for path in (references, estimates):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
    if references.is_dir() != estimates.is_dir():
        raise UserError(f"{references} and {estimates}: give two folders or two files")
    if not references.is_dir():
        return [(estimates.name, references, estimates)]
    known: dict[Path, list[Path]] = {}
    for path, name in find_audio([references]):
        known.setdefault(name.with_suffix(""), []).append(path)
        known.setdefault(name, []).append(path)
    found, lonely = [], []
    for path, name in find_audio([estimates]):
        match = known.get(name) or known.get(name.with_suffix(""), [])
        if len(match) > 1:
            raise UserError(f"{path}: several references could be meant: {', '.join(map(str, match))}")
        if match:
            found.append((str(name), match[0], path))
        else:
            lonely.append(str(name))
    if lonely:
        raise UserError(f"{estimates}: no reference in {references} for {', '.join(lonely[:5])}: names must agree")
    return found


def compare_files(reference: Path, estimate: Path) -> dict[str, float]:
    """Metrics of two files, read at 16 kHz; lengths may differ by one latent frame, which is cut off."""
    a, b = read_audio(reference, SAMPLE_RATE), read_audio(estimate, SAMPLE_RATE)
    if abs(len(a) - len(b)) > SLACK:
        raise UserError(f"{estimate}: {len(b)} samples at 16 kHz, but {reference} has {len(a)}: not the same length")
    size = min(len(a), len(b))
    return measure(a[:size], b[:size])


def evaluate(found: list[tuple[str, Path, Path]]) -> tuple[list[Row], list[str]]:
    """A row for each pair, and a line for each that could not be read."""
    rows, failures = [], []
    for name, reference, estimate in tqdm(found, unit="file", disable=None):
        try:
            rows.append({"file": name} | compare_files(reference, estimate))
        except UserError as error:
            failures.append(str(error))
    return rows, failures


def summary(rows: list[Row]) -> list[tuple[str, float, float, str]]:
    """(metric, mean, median, worst file) over the rows where it is a number."""
    lines = []
    for name in [key for key in rows[0] if key != "file"] if rows else []:
        figures = [(float(row[name]), str(row["file"])) for row in rows]
        told = [(value, file) for value, file in figures if not math.isnan(value)]
        if told:
            values = [value for value, _ in told]
            worst = max(((badness(name, value), file) for value, file in told), key=lambda pair: pair[0])[1]
            lines.append((name, statistics.mean(values), statistics.median(values), one_line(worst)))
    return lines


def write_csv(path: Path, rows: list[Row]) -> None:
    """Rows with one set of keys, whole or not at all; numbers to six digits, NaN as an empty cell."""
    with whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["file"])
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _cell(value) for key, value in row.items()})


def _cell(value):
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value
