"""The pages and tables that are written by commands: what they say follows from what they measured."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ddcm.recipes import RECIPES
from tests.conftest import ROOT

DOCS = runpy.run_path(str(ROOT / "docs" / "recipes.py"))
METRICS = ("log_mel_mae_db", "log_mel_corr", "lsd_db", "mrstft", "hf_ratio_db", "clap_score")


@pytest.fixture(scope="module")
def found():
    """Numbers that tell the rows apart: row i has i + 0.25 on speech and i + 0.75 on effects."""
    return {
        name: {metric: {"speech": [i + 0.25], "effects": [i + 0.75, float("nan")]} for metric in METRICS}
        for i, (name, *_) in enumerate(DOCS["plan"]())
    }


def test_the_page_has_every_row_and_its_numbers(found):
    clips = [(SimpleNamespace(kind=kind), None) for kind in ("speech", "effects")]
    text = DOCS["page"](found, clips, SimpleNamespace(backbone="b", seconds=5.12), 7)
    assert "speech 1, music 0, percussion 0, effects 1" in text and "ran with 7 steps" in text
    for i, (name, *_) in enumerate(DOCS["plan"]()):
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert row.split(" | ")[1:] == [f"{i + 0.25:.2f}", "-", "-", f"{i + 0.75:.2f}", f"{i + 0.5:.2f} |"]
    assert "`matched` is the best" in text


def test_the_shipped_page_is_of_this_table():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name, recipe in RECIPES.items():
        assert f"| `{name}` | {recipe.verb} | {recipe.about} | {DOCS['_settings'](recipe)} |" in text
    assert all(f"\n| {name} |" in text for name, *_ in DOCS["plan"]())


def test_results_are_stamped_beside_their_rows(found, tmp_path):
    file = tmp_path / "recipes.py"
    shutil.copy(ROOT / "ddcm" / "recipes.py", file)
    DOCS["stamp"](found, file)
    text = file.read_text()
    assert '"matched": Recipe(  # log_mel_mae_db 0.50, hf_ratio_db 0.50\n' in text
    assert runpy.run_path(str(file))["RECIPES"].keys() == RECIPES.keys()


def test_every_row_of_the_table_has_its_measurement():
    text = (ROOT / "ddcm" / "recipes.py").read_text()
    for name in RECIPES:
        assert re.search(rf'"{re.escape(name)}": Recipe\(  # log_mel_\w+ -?\d', text), name


def test_the_benchmark_prints_its_table():
    options = "--backbone tiny --codebook none --seconds 1 --repeats 1 --recipes matched ultimate-fix"
    command = [sys.executable, "benchmarks/reconstruct.py", *options.split()]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    rows = [line for line in done.stdout.splitlines() if line.startswith("| `")]
    assert len(rows) == 2 and "30-45 s" in rows[1] and float(rows[0].split("|")[2]) > 0
