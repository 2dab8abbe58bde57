"""Rate against distortion: rows of recordings and systems as a table, as plots and as files for other programs."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ddcm.errors import UserError
from ddcm.evaluation.evaluate_files import Row, mean_with_interval, write_csv, write_jsonl
from ddcm.evaluation.metric_labels import label, sort_metrics
from ddcm.evaluation.plots import draw_curves
from ddcm.runtime.files import slug, write_atomically

log = logging.getLogger(__name__)

COMMON = ("system", "file", "seconds", "bytes", "encode_s", "decode_s")
"""Columns of each row before its metrics."""
Rows = Sequence[Mapping[str, Any]]
R = TypeVar("R", bound=Mapping[str, Any])
V = TypeVar("V")


def group_by_system(rows: Sequence[R]) -> dict[str, list[R]]:
    systems: dict[str, list[R]] = {}
    for row in rows:
        systems.setdefault(row["system"], []).append(row)
    return systems


def group_by_family(systems: dict[str, V]) -> dict[str, list[V]]:
    """Families of systems that differ in rate: name without its last number -> the value of each."""
    families: dict[str, list[V]] = {}
    for name, own in systems.items():
        families.setdefault(name.rsplit(" ", 1)[0] if name[-1].isdigit() else name, []).append(own)
    return families


def compute_kbps(rows: Rows) -> float:
    """Of all files together: those of short recordings have the larger headers."""
    return sum(int(row["bytes"]) for row in rows) / 125 / sum(float(row["seconds"]) for row in rows)


def list_metrics(rows: Rows) -> list[str]:
    """Names of the metrics that have a value, in order of importance."""
    names = dict.fromkeys(name for row in rows for name in row if name not in COMMON)
    return sort_metrics(name for name in names if any(_values(rows, name)))


def _values(rows: Rows, name: str) -> list[float]:
    return [float(row[name]) for row in rows if not math.isnan(row.get(name, math.nan))]


def make_table(rows: Rows) -> str:
    """Markdown with a line for each system: files, rate, seconds of work for a second of sound, means of the metrics
    with the half widths of their 95 % confidence intervals."""
    names = list_metrics(rows)
    heads = [f"{label(name).text}{f', {label(name).unit}' * bool(label(name).unit)}" for name in names]
    head = ["system", "files", "kbps", *heads, "encode, s/s", "decode, s/s"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for system, own in group_by_system(rows).items():
        seconds = sum(row["seconds"] for row in own)
        cells = [system, str(len(own)), f"{compute_kbps(own):.2f}"]
        cells += [_format(*mean_with_interval(_values(own, name))) for name in names]
        cells += [f"{sum(row[name] for row in own) / seconds:.2f}" for name in ("encode_s", "decode_s")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _format(mean: float, half_width: float) -> str:
    if math.isnan(mean):
        return "-"
    return f"{mean:.2f}" if math.isnan(half_width) else f"{mean:.2f} ± {half_width:.2f}"


def write_results(folder: Path, rows: Sequence[Row], details: Sequence[dict[str, Any]], about: str) -> str:
    """Write ``benchmark.csv``, ``benchmark.md``, ``versa/SYSTEM.jsonl`` and ``plots/METRIC.png``; the table. Earlier
    ones are replaced. Without matplotlib there is a warning in place of plots.

    Args:
        rows: ``COMMON`` and metrics, NaN where one is undefined.
        details: further columns of each row in the .csv file, as JSON.
        about: text above the table.
    """
    names, systems = list_metrics(rows), group_by_system(rows)
    more = [{key: json.dumps(value) for key, value in each.items()} for each in details]
    write_csv(folder / "benchmark.csv", [{**row, **each} for row, each in zip(rows, more, strict=True)])
    with write_atomically(folder / "versa") as temporary:
        for system, own in systems.items():
            kept = [{key: row[key] for key in row if key == "file" or key not in COMMON} for row in own]
            write_jsonl(temporary / f"{slug(system)}.jsonl", kept)
    pictures = _draw(folder / "plots", names, systems)
    table = make_table(rows)
    with write_atomically(folder / "benchmark.md") as temporary:
        parts = ["# Rate against distortion", about, table, *(f"![{name}](plots/{name}.png)" for name in pictures)]
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return table


def _draw(folder: Path, names: Sequence[str], systems: dict[str, list[Row]]) -> list[str]:
    """Names of the metrics that were drawn."""
    try:
        with write_atomically(folder) as temporary:
            for name in names:
                points = {
                    system: (compute_kbps(own), *mean_with_interval(_values(own, name)))
                    for system, own in systems.items()
                    if _values(own, name)
                }
                unit = f", {label(name).unit}" * bool(label(name).unit)
                text, explanation = f"{label(name).text}{unit}", label(name).explanation
                draw_curves(temporary / f"{name}.png", text, explanation, group_by_family(points))
    except UserError as error:  # no matplotlib
        log.warning("%s", error)
        return []
    return [*names]
