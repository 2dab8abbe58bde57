"""Tables of a record, for docs/gpu.md."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.gpu import fit_step, portability, processes, verbs
from benchmarks.marks import cell, fill, mean

PAGE, MARK = Path("docs/gpu.md"), "benchmarks.gpu"
Row = dict[str, Any]


def write(data: dict[str, Any], page: Path = PAGE) -> None:
    fill(page, MARK, render(data))


def render(data: dict[str, Any]) -> str:
    machine = data.get("machine", {})
    lines = [f"Measured on {machine.get('device', 'an unknown device')}, torch {machine.get('torch', '-')}, "
             f"{machine.get('date', '-')}; `{machine.get('command', '-')}`."]  # fmt: skip
    for title, part, table in TABLES:
        content = data["parts"].get(part, {"rows": [], "notes": []})
        rows = [row for row in content["rows"] if "error" not in row]
        lines += ["", f"## {title}", ""]
        if rows:
            lines += table(rows)
        failed = [row for row in content["rows"] if "error" in row]
        notes = [*content["notes"], *(f"{_name(row)}: {row['error']}" for row in failed)]
        notes += [] if rows or notes else ["Not measured."]
        lines += [*([""] if rows else []), *(f"- {note}" for note in notes)] if notes else []
    return "\n".join(lines)


def _name(row: Row) -> str:
    return ", ".join(str(value) for key, value in row.items() if key != "error")


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    head = list(head)
    body = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *body]


def _number(row: Row | None, key: str, digits: int) -> str:
    value = None if row is None else row.get(key)
    return "-" if value is None else cell(float(value), digits)


def portability_table(rows: list[Row]) -> list[str]:
    """A line for each pair of devices and dtypes; means over clips."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("mode", "made", "made_dtype", "decoded", "decoded_dtype"))
        groups.setdefault(key, []).append(row)
    lines = []
    for (mode, made, made_dtype, decoded, decoded_dtype), group in groups.items():
        refused = next((row["refused"] for row in group if "refused" in row), "")
        bits = "-" if refused else f"{sum(row['same_bits'] for row in group)} of {len(group)}"
        lines.append((mode, f"{made} {made_dtype}", f"{decoded} {decoded_dtype}", len(group), bits,
                      "-" if refused else f"{mean(group, 'latent_rms'):.1e}", cell(mean(group, "mel_db"), 5),
                      cell(mean(group, "home_db"), 2), cell(mean(group, "away_db"), 2), refused))  # fmt: skip
    machines = sorted({f"{row['made']}: {row['made_by']}" for row in rows if "made_by" in row})
    head = ("mode", "made on", "decoded on", "clips", "same bits", "latents differ, rms", "mels differ, dB",
            "error at home, dB", "error there, dB", "refused")  # fmt: skip
    return [*([f"Files were made by {'; '.join(machines)}.", ""] if machines else []), *_table(head, lines)]


def rates_table(rows: list[Row]) -> list[str]:
    return _table(("dtype", "matrix product, TFLOP/s"), [(row["dtype"], _number(row, "tflops", 1)) for row in rows])


def unet_table(rows: list[Row]) -> list[str]:
    cells = [(row["dtype"], row["batch"], _number(row, "ms", 2), _number(row, "tflops", 1),
              f"{100 * row['share']:.0f} %", _number(row, "peak_mib", 0)) for row in rows]  # fmt: skip
    return _table(
        ("dtype", "windows", "ms a call", "TFLOP/s", "of the matrix rate", "memory above weights, MiB"), cells
    )


def verbs_table(rows: list[Row]) -> list[str]:
    groups: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("task", "batch", "dtype", "steps"))
        groups.setdefault(key, {})[row["system"]] = row
    lines = []
    for key, systems in groups.items():
        stock, ours = systems.get("stock"), systems.get("ours")
        times = f"{stock['s'] / ours['s']:.2f}" if stock and ours else "-"
        share = ours.get("share", math.nan) if ours else math.nan
        lines.append((*key, _number(stock, "s", 2), _number(ours, "s", 2), times,
                      "-" if math.isnan(share) else f"{100 * share:.0f} %",
                      _number(stock, "peak_mib", 0), _number(ours, "peak_mib", 0),
                      _number(stock, "new_prompt_s", 2), _number(ours, "new_prompt_s", 2)))  # fmt: skip
    return _table(("verb", "windows", "dtype", "UNet calls", "stock, s", "ours, s", "times", "ours, of the matrix rate",
                   "stock, MiB", "ours, MiB", "stock, new prompt, s", "ours, new prompt, s"), lines)  # fmt: skip


def compiled_table(rows: list[Row]) -> list[str]:
    cells = [(row["task"], row["batch"], row["dtype"], row["steps"], _number(row, "warm_up_s", 1),
              _number(row, "s", 2), _number(row, "peak_mib", 0)) for row in rows]  # fmt: skip
    return _table(("verb", "windows", "dtype", "UNet calls", "first call, s", "later calls, s", "MiB"), cells)


def fit_table(rows: list[Row]) -> list[str]:
    cells = [(row["contender"], f"{row['cells']:,}", _number(row, "ms", 2), _number(row, "peak_mib", 0))
             for row in rows]  # fmt: skip
    return _table(("quantizer", "cells a step", "step, ms", "step's memory, MiB"), cells)


def tests_table(rows: list[Row]) -> list[str]:
    passed = [row["tests"] - row["failures"] - row["errors"] - row["skipped"] for row in rows]
    return [f"{count} of {row['tests']} passed, {row['skipped']} were skipped; failed: "
            f"{', '.join(row['failed']) or 'none'}." for count, row in zip(passed, rows, strict=True)]  # fmt: skip


def ranks_table(rows: list[Row]) -> list[str]:
    cells = [(row["backend"], row["same_on_ranks"], f"{row['difference_to_one_process']:.1e}",
              _number(row, "ms", 2), _number(row, "ms_one_process", 2)) for row in rows]  # fmt: skip
    return _table(("backend", "same atoms on both", "atoms differ from one process's", "step, ms", "alone, ms"), cells)


TABLES: tuple[tuple[str, str, Callable[[list[Row]], list[str]]], ...] = (
    ("Files from one device to another", portability.PART, portability_table),
    ("Rate of the card", verbs.RATES, rates_table),
    ("One call of the UNet", verbs.UNET, unet_table),
    ("Every verb against the stock pipeline", verbs.VERBS, verbs_table),
    ("With --compile", verbs.COMPILED, compiled_table),
    ("A step of a fit", fit_step.PART, fit_table),
    ("Tests that need a GPU", processes.TESTS, tests_table),
    ("Two processes", processes.RANKS, ranks_table),
)
