"""Metrics of a folder of estimates against a folder of references."""

import csv
import json
import math
import statistics
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch

from ddcm.audio.files import read_audio
from ddcm.audio.search import find_audio
from ddcm.errors import UserError, to_one_line
from ddcm.evaluation.perceptual import installed
from ddcm.evaluation.signal_metrics import METRICS, SAMPLE_RATE, badness
from ddcm.runtime.files import resolve_shipped, write_atomically
from ddcm.runtime.progress import OnStep, Progress

FORMS = ("", "NFC")  # names are compared as they are, then as composed Unicode: macOS and some archives decompose it
Row = dict[str, str | float]
MAX_LENGTH_DIFFERENCE = 640  # Samples at 16 kHz: one latent frame. Resampling and codecs change lengths a little.


def measure(
    reference: torch.Tensor, estimate: torch.Tensor, judges: bool = False, on_step: OnStep | None = None,
    speech: bool = True,
) -> dict[str, float]:  # fmt: skip
    """Every metric of two 16 kHz signals (S,), those of installed packages too; NaN where a metric is undefined.
    ``judges``: also those that take seconds. ``speech``: also those that are made for speech. ``on_step`` counts the
    metrics."""
    metrics, values = METRICS | (installed(judges) if speech else {}), dict[str, float]()
    progress = Progress(on_step, len(metrics))
    for name, metric in metrics.items():
        values[name] = metric(reference, estimate)
        progress.step()
    return values


def pair_files(references: str | Path, estimates: str | Path) -> list[tuple[str, Path, Path]]:
    """(name, reference, estimate) by relative name without suffix; two files are a pair whatever their names. An
    estimate may keep the suffix of its reference before its own, as ``a.mp3.wav`` of ``a.mp3``. Raises UserError: a
    missing folder, a file against a folder, or an estimate with no reference or with several."""
    references, estimates = resolve_shipped(references), resolve_shipped(estimates)
    for path in (references, estimates):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
    if references.is_dir() != estimates.is_dir():
        raise UserError(f"{references} and {estimates}: give two folders or two files")
    if not references.is_dir():
        return [(estimates.name, references, estimates)]
    known: dict[tuple[str, str], list[Path]] = {}
    for path, name in find_audio([references]):
        for form in FORMS:
            for key in (name.with_suffix(""), name):
                known.setdefault((form, _spell(key, form)), []).append(path)
    pairs, unmatched = [], []
    for path, name in find_audio([estimates]):
        keys = [(form, _spell(key, form)) for key in (name, name.with_suffix("")) for form in FORMS]
        matches = next((known[key] for key in keys if key in known), [])
        if len(matches) > 1:
            raise UserError(f"{path}: several references could be meant: {', '.join(map(str, matches))}")
        if matches:
            pairs.append((str(name), matches[0], path))
        else:
            unmatched.append(str(name))
    if unmatched:
        raise UserError(f"{estimates}: no reference in {references} for {', '.join(unmatched[:5])}: names must agree")
    return pairs


def _spell(name: Path, form: str) -> str:
    return unicodedata.normalize("NFC", str(name)) if form == "NFC" else str(name)


def evaluate_pairs(
    pairs: list[tuple[str, Path, Path]], on_step: OnStep | None = None
) -> tuple[list[Row], list[str]]:  # fmt: skip
    """A row for each pair, read at 16 kHz, and an error message for each pair that cannot be measured. The longer file
    of a pair is cut to the length of the other, but by one latent frame at most. ``on_step`` counts all metrics."""
    rows: list[Row] = []
    failures = []
    for number, (name, reference, estimate) in enumerate(pairs):

        def on_metric(done: int, total: int, number: int = number) -> None:
            if on_step is not None:
                on_step(number * total + done, len(pairs) * total)

        try:
            a, b = read_audio(reference, SAMPLE_RATE), read_audio(estimate, SAMPLE_RATE)
        except UserError as error:
            failures.append(str(error))
            continue
        size = min(len(a), len(b))
        if max(len(a), len(b)) - size > MAX_LENGTH_DIFFERENCE:
            lengths = f"{len(b)} samples at 16 kHz, but {reference} has {len(a)}"
            failures.append(to_one_line(f"{estimate}: {lengths}: not the same length"))
        else:
            rows.append({"file": name} | measure(a[:size], b[:size], judges=True, on_step=on_metric))
    return rows, failures


def summarize(rows: list[Row]) -> list[tuple[str, float, float, str]]:
    """(metric, mean, median, worst file) over the rows where the metric is not NaN."""
    lines = []
    for name in list(rows[0])[1:] if rows else []:
        values = {str(row["file"]): value for row in rows if not math.isnan(value := float(row[name]))}
        if values:
            worst = max(values, key=lambda file: badness(name, values[file]))
            mean, median = statistics.mean(values.values()), statistics.median(values.values())
            lines.append((name, mean, median, to_one_line(worst)))
    return lines


def mean_with_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % confidence interval by Student's t; NaN where there are too few values."""
    from scipy.stats import t

    if len(values) < 2:
        return (values[0] if values else math.nan), math.nan
    error = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), float(t.ppf(0.975, len(values) - 1)) * error


def write_jsonl(path: Path, rows: list[Row]) -> None:
    """Write rows as VERSA (github.com/wavlab-speech/versa) does: a JSON object a line with the name of the file as
    ``key`` and a number for each metric, null where it is NaN. Wide-band PESQ is ``pesq`` there."""
    with write_atomically(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for row in rows:
            names = {"file": "key", "pesq_wb": "pesq"}
            values = {
                names.get(name, name): None if x != x else x for name, x in row.items()
            }  # NaN differs from itself
            file.write(json.dumps(values) + "\n")


def write_csv(path: Path, rows: list[Row]) -> None:
    """Write rows that all have the same keys. Numbers have six digits; NaN is an empty cell."""
    with (
        write_atomically(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(rows[0] if rows else ["file"])
        for row in rows:
            numbers = {key: "" if math.isnan(x) else f"{x:.6g}" for key, x in row.items() if isinstance(x, float)}
            writer.writerow((row | numbers).values())
