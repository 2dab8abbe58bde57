"""Pages and tables that commands write: their sentences follow from the measurements."""

import re
import runpy
import shutil

import numpy as np
import pytest

from benchmarks import recipe_claims as claims
from benchmarks import reconstruct
from benchmarks.quantizer_rows import Row, difference
from benchmarks.quantizers import describe_gap
from benchmarks.recipe_page import format_settings, render_page
from benchmarks.recipes import list_rows, measure_clip, stamp
from ddcm.pipeline import DDCMPipeline
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import Codebook
from ddcm.recipes import MEASURED_DB, RECIPES
from tests.conftest import ROOT

METRICS = ("log_mel_mae_db", "log_mel_corr", "lsd_db", "mrstft", "hf_ratio_db", "clap_score", "clap_mean")
NAMES = [name for name, *_ in list_rows()]


@pytest.fixture
def results():
    """Different numbers in every row: row i has i + 0.25 on speech and i + 0.75 on effects."""
    return {
        name: {metric: {"speech": [i + 0.25], "effects": [i + 0.75, float("nan")]} for metric in METRICS}
        for i, name in enumerate(NAMES)
    }


def test_every_row_is_measured_on_a_clip(tiny, speech):
    quantizer = HardQuantizer(codebook_size=32).eval().requires_grad_(False)
    pipe = DDCMPipeline(tiny, Codebook(quantizer, tiny.name, tiny.latent_digest, {}))
    rows = measure_clip(pipe, speech[8000:16000], "rain", diffused=True, steps=2)
    assert list(rows) == NAMES
    assert rows["full-diffusion"]["clap_score"] > rows["full-diffusion"]["clap_mean"]
    assert {"log_mel_mae_db", "log_mel_corr", "hf_ratio_db"} <= set(rows["matched"])
    few = measure_clip(pipe, speech[8000:16000], "rain", diffused=False, steps=2)
    assert list(few) == [name for name, verb, *_ in list_rows() if verb == "reconstruct"]


def test_the_page_has_every_row_and_its_numbers(results):
    text = render_page(results, list_rows(), "b", 5.12, 7)
    assert "3 (speech 1, music 0, percussion 0, effects 2)" in text and "ran with 7 steps" in text
    for i, name in enumerate(NAMES):
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert row.split(" | ")[1:] == [f"{i + 0.25:.2f}", "-", "-", f"{i + 0.75:.2f}", f"{i + 0.5:.2f} |"]


def test_sentences_about_recipes_follow_from_the_numbers(results):
    def all_clips(metric, **values):
        for name, value in values.items():
            results[name.replace("_", "-")][metric] = {"speech": [value]}

    fronts = {name.replace("-", "_"): 4.5 for name in claims.FRONT_ENDS}
    all_clips("log_mel_mae_db", matched=4.0, **fronts)
    assert "has the lowest median" in claims.describe_lowest(results) and "all within 3 dB" in claims.describe_lowest(
        results
    )
    all_clips("log_mel_mae_db", critical_fix=3.5, v3_balanced=7.2)
    assert "(`critical-fix` is, by 0.50 dB)" in claims.describe_lowest(results)
    assert "further than 3 dB: v3-balanced" in claims.describe_lowest(results) and "+3.20 dB" in claims.describe_lowest(
        results
    )
    all_clips("hf_ratio_db", v4_high_freq=-0.5, v5_high_freq=0.2, ultimate_fix=-0.6)
    assert "both closer to 0 than `ultimate-fix` with 0.60" in claims.describe_high_band(results)
    assert "not both" not in claims.describe_high_band(results)
    all_clips("hf_ratio_db", v5_high_freq=0.7)
    assert "not both closer" in claims.describe_high_band(results)
    all_clips("clap_score", full_diffusion=0.5)
    all_clips("clap_mean", full_diffusion=0.25)
    assert "0.500, where all its candidates have 0.250" in claims.describe_ranking(results)


def test_sentences_about_quantizers_follow_from_the_numbers():
    rows = {("q", 1): Row(0.01, 3.0), ("q", 8): Row(0.001, 2.2)}
    assert "closes 80.0% of the gap" in describe_gap(rows, Row(0.0, 2.0), "q")
    one, other = np.array([1.0, 2.0, 3.0]), np.array([1.1, 2.1, 2.9])
    sentence = difference("a", one, "b", other)
    assert "-0.03333 (standard error 0.06667; -1.6%), lower on 2 of 3 clips" in sentence


def test_the_shipped_page_is_of_this_table():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name, recipe in RECIPES.items():
        assert f"| `{name}` | {recipe.verb} | {recipe.about} | {format_settings(recipe)} |" in text
    assert all(f"\n| {name} |" in text for name in NAMES)


def test_results_are_stamped_beside_their_rows(results, tmp_path):
    file = tmp_path / "recipes.py"
    shutil.copy(ROOT / "ddcm" / "recipes.py", file)
    stamp(results, file)
    text = file.read_text()
    assert '"matched": Recipe(  # log_mel_mae_db 0.50, hf_ratio_db 0.50\n' in text
    stamped = runpy.run_path(str(file))
    assert stamped["RECIPES"].keys() == RECIPES.keys() and stamped["MEASURED_DB"].keys() == MEASURED_DB.keys()
    assert stamped["MEASURED_DB"]["matched"][-1] == 0.5


def test_every_row_of_the_table_has_its_measurement():
    text = (ROOT / "ddcm" / "recipes.py").read_text()
    for name in RECIPES:
        assert re.search(rf'"{re.escape(name)}": Recipe\(  # log_mel_\w+ -?\d', text), name


def test_the_benchmark_writes_its_table(tmp_path):
    options = "--backbone tiny --codebook none --seconds 1 --repeats 1 --recipes matched ultimate-fix"
    reconstruct.main([*options.split(), "--out", str(tmp_path / "speed.md")])
    rows = [line for line in (tmp_path / "speed.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == 2 and "30-45 s" in rows[1] and float(rows[0].split("|")[2]) > 0
