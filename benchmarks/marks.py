"""Write tables into pages, between two comments."""

import math
import re
from pathlib import Path

import numpy as np


def mean(rows: list[dict], key: str) -> float:
    """Mean of the rows that have a number under ``key``; NaN if none has."""
    values = [float(r[key]) for r in rows if r.get(key) not in ("", None) and not math.isnan(float(r[key]))]
    return float(np.mean(values)) if values else math.nan


def cell(value: float, digits: int) -> str:
    """The number with ``digits`` digits, or a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def fill(page: Path, name: str, text: str) -> None:
    """Replace the text between ``<!-- name -->`` and ``<!-- end of name -->``.

    Raises:
        SystemExit: the page has no such marks.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    whole = page.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(whole)) != 1:
        raise SystemExit(f"{page} must have {begin} and {end} once")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{text.strip()}\n{end}", whole), encoding="utf-8")
