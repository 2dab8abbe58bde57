"""The pages and tables that are written by commands: what they say follows from what they measured."""

import re
import runpy
import shutil

import numpy as np
import pytest

from benchmarks import recipe_claims as claims
from benchmarks import reconstruct
from benchmarks.quantizer_rows import Row, difference
from benchmarks.quantizers import closed
from benchmarks.recipe_page import page, said_settings
from benchmarks.recipes import one_clip, plan, stamp
from ddcm.pipeline import DDCMPipeline
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import Codebook
from ddcm.recipes import RECIPES
from tests.conftest import ROOT

METRICS = ("log_mel_mae_db", "log_mel_corr", "lsd_db", "mrstft", "hf_ratio_db", "clap_score", "clap_mean")
NAMES = [name for name, *_ in plan()]


@pytest.fixture
def found():
    """Numbers that tell the rows apart: row i has i + 0.25 on speech and i + 0.75 on effects."""
    return {
        name: {metric: {"speech": [i + 0.25], "effects": [i + 0.75, float("nan")]} for metric in METRICS}
        for i, name in enumerate(NAMES)
    }


def test_a_clip_meets_every_row(tiny, speech):
    quantizer = HardQuantizer(codebook_size=32).eval().requires_grad_(False)
    pipe = DDCMPipeline(tiny, Codebook(quantizer, tiny.name, tiny.latent_digest, {}))
    rows = one_clip(pipe, speech[8000:16000], "rain", diffused=True, steps=2)
    assert list(rows) == NAMES
    assert rows["full-diffusion"]["clap_score"] > rows["full-diffusion"]["clap_mean"]
    assert {"log_mel_mae_db", "log_mel_corr", "hf_ratio_db"} <= set(rows["matched"])
    few = one_clip(pipe, speech[8000:16000], "rain", diffused=False, steps=2)
    assert list(few) == [name for name, verb, *_ in plan() if verb == "reconstruct"]


def test_the_page_has_every_row_and_its_numbers(found):
    text = page(found, plan(), "b", 5.12, 7)
    assert "3 (speech 1, music 0, percussion 0, effects 2)" in text and "ran with 7 steps" in text
    for i, name in enumerate(NAMES):
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert row.split(" | ")[1:] == [f"{i + 0.25:.2f}", "-", "-", f"{i + 0.75:.2f}", f"{i + 0.5:.2f} |"]


def test_what_is_said_of_recipes_follows_from_the_numbers(found):
    def all_clips(metric, **values):
        for name, value in values.items():
            found[name.replace("_", "-")][metric] = {"speech": [value]}

    fronts = {name.replace("-", "_"): 4.5 for name in claims.FRONT_ENDS}
    all_clips("log_mel_mae_db", matched=4.0, **fronts)
    assert "has the lowest median" in claims.lowest(found) and "all within 3 dB" in claims.lowest(found)
    all_clips("log_mel_mae_db", critical_fix=3.5, v3_balanced=7.2)
    assert "(`critical-fix` is, by 0.50 dB)" in claims.lowest(found)
    assert "further than 3 dB: v3-balanced" in claims.lowest(found) and "+3.20 dB" in claims.lowest(found)
    all_clips("hf_ratio_db", v4_high_freq=-0.5, v5_high_freq=0.2, ultimate_fix=-0.6)
    assert "both closer to 0 than `ultimate-fix` with 0.60" in claims.high_band(found)
    assert "not both" not in claims.high_band(found)
    all_clips("hf_ratio_db", v5_high_freq=0.7)
    assert "not both closer" in claims.high_band(found)
    all_clips("clap_score", full_diffusion=0.5)
    all_clips("clap_mean", full_diffusion=0.25)
    assert "0.500, where all its candidates have 0.250" in claims.ranked(found)


def test_what_is_said_of_quantizers_follows_from_the_numbers():
    rows = {("q", 1): Row(0.01, 3.0), ("q", 8): Row(0.001, 2.2)}
    assert "closes 80.0% of the gap" in closed(rows, Row(0.0, 2.0), "q")
    one, other = np.array([1.0, 2.0, 3.0]), np.array([1.1, 2.1, 2.9])
    said = difference("a", one, "b", other)
    assert "-0.03333 (standard error 0.06667; -1.6%), lower on 2 of 3 clips" in said


def test_the_shipped_page_is_of_this_table():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name, recipe in RECIPES.items():
        assert f"| `{name}` | {recipe.verb} | {recipe.about} | {said_settings(recipe)} |" in text
    assert all(f"\n| {name} |" in text for name in NAMES)


def test_results_are_stamped_beside_their_rows(found, tmp_path):
    file = tmp_path / "recipes.py"
    shutil.copy(ROOT / "ddcm" / "recipes.py", file)
    stamp(found, file)
    text = file.read_text()
    assert '"matched": Recipe(  # log_mel_mae_db 0.50, hf_ratio_db 0.50\n' in text
    assert runpy.run_path(str(file))["RECIPES"].keys() == RECIPES.keys()


def test_every_row_of_the_table_has_its_measurement():
    text = (ROOT / "ddcm" / "recipes.py").read_text()
    for name in RECIPES:
        assert re.search(rf'"{re.escape(name)}": Recipe\(  # log_mel_\w+ -?\d', text), name


def test_the_benchmark_writes_its_table(tmp_path):
    options = "--backbone tiny --codebook none --seconds 1 --repeats 1 --recipes matched ultimate-fix"
    reconstruct.main([*options.split(), "--out", str(tmp_path / "speed.md")])
    rows = [line for line in (tmp_path / "speed.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == 2 and "30-45 s" in rows[1] and float(rows[0].split("|")[2]) > 0
