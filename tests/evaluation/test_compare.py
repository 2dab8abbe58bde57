"""The comparison and its report: its contents, escaping, and that a browser opens it."""

import csv
import math
import shutil

import pytest
import soundfile
import torch

from ddcm.cli.main import main
from ddcm.evaluation.compare import compare, list_cases
from ddcm.evaluation.html_report import Entry, render_report, write_report
from ddcm.evaluation.signal_metrics import METRICS
from ddcm.pipeline import DDCMPipeline
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import Codebook
from ddcm.recipes import RECIPES
from ddcm.runtime.files import slug
from ddcm.runtime.memory import measure_cost
from tests.helpers.accessible import find_barriers

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def entries(tiny, speech):
    quantizer = HardQuantizer(codebook_size=32).eval().requires_grad_(False)
    pipe = DDCMPipeline(tiny, Codebook(quantizer, tiny.name, tiny.latent_digest, {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "ddcm.evaluation.compare.measure", lambda a, b: {n: metric(a, b) for n, metric in METRICS.items()}
        )
        return compare(pipe, speech[:16000], {"prompt": "a voice"}, steps=2)


@pytest.fixture(scope="module")
def folder(entries, tmp_path_factory):
    target = tmp_path_factory.mktemp("report") / "out"
    write_report(target, "a test", entries, 16000, {"backbone": "tiny"})
    return target


def test_every_recipe_is_compared_with_and_without_conversion(entries):
    names = [entry.name for entry in entries]
    assert names[:3] == ["input", "matched", "refined"] and len(names) == len(set(names))
    for name, recipe in RECIPES.items():
        if recipe.verb == "reconstruct":
            assert name in names and (f"{name}, raw features" in names) == (recipe.features != "matched")
    assert {"transform 0.3", "transform 0.6", "transform 0.9"} <= set(names)
    for name, recipe in RECIPES.items():
        if recipe.verb == "generate":
            (entry,) = (entry for entry in entries if entry.name == f"generate {name}")
            assert math.isnan(entry.metrics["log_mel_mae_db"]) and -1 <= entry.metrics["clap_score"] <= 1
            assert entry.settings["steps"] == 2
    assert all(entry.seconds > 0 and entry.settings for entry in entries[1:])
    assert entries[0].metrics["log_mel_mae_db"] == 0


def test_without_a_codebook_nothing_quantises():
    assert "quantised" not in [case.name for case in list_cases(quantised=False)]
    assert all(c.flags["quantizer"] == "none" for c in list_cases(quantised=False) if c.verb != "reconstruct")


def test_the_files(folder, entries):
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "metrics.csv", "spectrograms.png", *(f"{slug(entry.name)}.wav" for entry in entries)
    }  # fmt: skip
    assert all(soundfile.info(path).frames == 16000 for path in folder.glob("*.wav"))
    table = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [row["recipe"] for row in table] == [entry.name for entry in entries]
    assert all(float(row["seconds"]) > 0 for row in table[1:])


def test_memory_and_time_are_measured():
    with measure_cost(torch.device("cpu")) as before:
        pass
    with measure_cost(torch.device("cpu")) as spent:
        held = [torch.ones(1 << 20) for _ in range(50)]  # 200 MiB
        sum(float(x.sum()) for x in held)
        total = [x * 2 for x in held]
    del total
    assert spent.seconds > before.seconds
    assert math.isnan(spent.peak_mib) or spent.peak_mib > before.peak_mib + 100


def test_names_are_escaped():
    hostile = Entry('<script>alert("x")</script>', {"prompt": "</pre><b>"}, torch.zeros(1600), {"m": 1.0}, 1, 1, {})
    text = render_report("<img src=x onerror=alert(1)>", [hostile, hostile], 16000, {"input": "<script>"})
    assert text.count("<script>") == 1 and "<img src=x" not in text and "</pre><b>" not in text
    assert slug("../../etc/passwd") == "etc-passwd" and slug("...") == "sound"


def test_long_audio_is_cut_on_the_page_only():
    entry = Entry("a", {}, torch.zeros(16000 * 40), {"m": 1.0}, 1, 1, {})
    text = render_report("t", [entry, entry], 16000, {})
    assert "cut to 30 s" in text and len(text) < 2 * 1.4 * 30 * 32000 + 50_000


def test_nothing_is_replaced_without_overwrite(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["compare", "examples/bird.flac", "-o", str(tmp_path), "--backbone", "tiny"]) == 2
    assert "--overwrite" in capsys.readouterr().err and [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    assert main(["compare", "absent.wav", "-o", str(tmp_path / "new"), "--backbone", "tiny"]) == 2
    assert "no such file" in capsys.readouterr().err and not (tmp_path / "new").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium installed")
def test_a_browser_opens_the_report(folder, entries):
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        requests, errors = [], []
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("console", lambda message: errors.append(message.text))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto((folder / "report.html").as_uri())
        tab.wait_for_function("[...document.querySelectorAll('audio')].every(a => a.readyState >= 1)")
        durations = tab.evaluate("[...document.querySelectorAll('audio')].map(a => a.duration)")
        widths = tab.evaluate("[...document.querySelectorAll('img')].map(i => i.naturalWidth)")
        names = "[...document.querySelectorAll('tbody tr b')].map(b => b.textContent)"
        first = tab.evaluate(names)
        heads = tab.evaluate("[...document.querySelectorAll('thead th')].map(th => th.dataset.name)")
        shown = (
            "[...document.querySelectorAll('thead [data-name]')].filter(e => e.offsetParent).map(e => e.dataset.name)"
        )
        four = tab.evaluate(shown)
        barriers = []
        for width in (1280, 390):
            for scheme in ("light", "dark"):
                tab.set_viewport_size({"width": width, "height": 900})
                tab.emulate_media(color_scheme=scheme)
                barriers += [f"{width}, {scheme}: {line}" for line in find_barriers(tab)]
        tab.get_by_label("Sort by").select_option(label="Time")
        on_a_phone = tab.evaluate(names)
        tab.set_viewport_size({"width": 1280, "height": 900})
        tab.get_by_label("All metrics").check()
        everything = tab.evaluate(shown)
        orders = []
        for _ in range(2):
            tab.click(f"thead th:nth-child({heads.index('log_mel_mae_db') + 1}) button")
            orders.append(tab.evaluate(names))
        tab.click(f"thead th:nth-child({heads.index('seconds') + 1}) button")
        by_time = tab.evaluate(names)
        tab.click("thead th:first-child button")
        back = tab.evaluate(names)
        browser.close()
    assert not barriers, "\n".join(barriers)
    assert four == ["log_mel_mae_db", "clap_score", "hf_ratio_db", "mrstft", "seconds"]
    assert set(everything) == {*entries[0].metrics, "seconds", "peak_mib"} and on_a_phone == by_time
    assert first == back == [entry.name for entry in entries]
    assert durations == pytest.approx([1.0] * len(entries), abs=0.01) and min(widths) >= 90
    errors_of = {entry.name: entry.metrics["log_mel_mae_db"] for entry in entries}
    up, down = ([x for name in order if not math.isnan(x := errors_of[name])] for order in orders)
    assert up == sorted(up) and down == sorted(down, reverse=True) and up != down
    assert by_time[-1] == "input"  # it has no time, so it stays at the end
    assert [url for url in requests if not url.startswith("data:")] == [(folder / "report.html").as_uri()]
    assert errors == []
