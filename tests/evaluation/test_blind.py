"""The listening test: its sounds, a visit in the browser, and the sum of its answers."""

import csv
import math
import shutil

import pytest
import torch

from ddcm.cli.main import main
from ddcm.evaluation.answers import read_answers, sum_up
from ddcm.evaluation.blind_page import ANCHOR, REFERENCE, measure_loudness, prepare_sounds, write_blind_page
from ddcm.evaluation.html_report import Entry
from tests.helpers.accessible import find_barriers

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TEST = "a <b>test</b>, seed 0"
SYSTEMS = [f"system {i}, raw" for i in range(12)]


@pytest.fixture(scope="module")
def page(speech, tmp_path_factory):
    audio = speech[:16000]
    sounds = {name: audio * 0.5 ** (i % 4) + 0.001 * i for i, name in enumerate(SYSTEMS)}
    entries = [Entry(name, {}, x, {"log_mel_mae_db": 1.0}, 1, 1, {}) for name, x in ({"input": audio} | sounds).items()]
    entries.append(Entry("generate final", {}, audio, {"log_mel_mae_db": math.nan}, 1, 1, {}))
    path = tmp_path_factory.mktemp("blind") / "blind.html"
    assert write_blind_page(path, TEST, entries, 16000) == SYSTEMS  # what was generated has no reference
    return path


def test_levels_are_matched_and_the_anchor_ends_at_4_khz(speech):
    noise = torch.randn(len(speech), generator=torch.Generator().manual_seed(0)) * 0.1
    sounds = prepare_sounds(noise, {"loud": 8 * speech, "quiet": 0.01 * speech, "silent": 0 * speech}, 16000)
    levels = {name: measure_loudness(audio, 16000) for name, audio in sounds.items() if name != "silent"}
    assert max(levels.values()) - min(levels.values()) < 0.05
    assert max(float(audio.abs().max()) for audio in sounds.values()) <= 0.9 + 1e-6
    power = torch.fft.rfft(sounds[ANCHOR]).abs().square()
    hertz = torch.fft.rfftfreq(len(speech), 1 / 16000)
    assert power[hertz > 4000].sum() < 1e-6 * power.sum() and power[(hertz > 3000) & (hertz < 3500)].sum() > 0
    full = torch.fft.rfft(sounds[REFERENCE]).abs()
    ratio = (power.sqrt() / full)[(hertz > 100) & (hertz < 3500)]
    assert float(ratio.max() / ratio.min()) < 10 ** (0.1 / 20)  # its passband is flat within 0.1 dB


def plan(test, listener, systems, most=10):
    """The trials of a listener, as the page makes them from its stated seed."""
    seed = 0x811C9DC5
    for byte in f"{test}/{listener}".encode():
        seed = (seed ^ byte) * 0x01000193 % 2**32
    state = seed

    def imul(a, b):
        return a * b % 2**32

    def random():
        nonlocal state
        state = (state + 0x6D2B79F5) % 2**32
        t = imul(state ^ state >> 15, state | 1)
        t = (t + imul(t ^ t >> 7, t | 61)) % 2**32 ^ t
        return (t ^ t >> 14) / 2**32

    def shuffle(names):
        names = list(names)
        for i in range(len(names) - 1, 0, -1):
            j = int(random() * (i + 1))
            names[i], names[j] = names[j], names[i]
        return names

    order = shuffle(systems)
    count = -(-len(order) // most)
    return seed, [shuffle([*order[i::count], REFERENCE, ANCHOR]) for i in range(count)]


def scores(name, listener):
    """Known ratings: those of the systems differ by 10 between the two listeners."""
    fixed = {REFERENCE: 100, ANCHOR: 20}
    return fixed.get(name) or 30 + 4 * SYSTEMS.index(name) + (10 if listener == "ann" else 0)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium installed")
def test_two_listeners_fill_it_in_and_are_summed_up(page, tmp_path, capsys):
    api = pytest.importorskip("playwright.sync_api")
    files = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for listener, width, scheme in (("ann", 1280, "light"), ("bob, jr", 390, "dark")):
            seed, trials = plan(TEST, listener, SYSTEMS)
            assert [len(trial) for trial in trials] == [8, 8]
            tab, requests, errors = (
                browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme),
                [],
                [],
            )
            tab.on("request", lambda request, seen=requests: seen.append(request.url))
            tab.on("pageerror", lambda error, seen=errors: seen.append(str(error)))
            tab.goto(page.as_uri())
            assert find_barriers(tab) == [] and tab.locator("#begin").is_disabled()
            tab.get_by_label("Your name").fill(listener)
            tab.get_by_role("button", name="Begin").click()
            for number, trial in enumerate(trials):
                tab.get_by_text(f"Part {number + 1} of 2").wait_for()
                assert not any(name in tab.locator("main").inner_html() for name in SYSTEMS)
                tab.get_by_role("button", name="Play reference").click()
                for row, name in enumerate(trial):
                    letter = "ABCDEFGH"[row]
                    slider = tab.get_by_label(f"Rating of {letter}")
                    assert slider.is_disabled() and tab.locator("#next").is_disabled()  # it is not played yet
                    tab.get_by_role("button", name=f"Play {letter}", exact=True).click()
                    slider.fill(str(scores(name, listener)))
                assert tab.evaluate("Object.values(playing).filter(p => p.gain.gain.value > 0.5).length") <= 1
                assert number or find_barriers(tab) == []
                tab.locator("#next").click()
            assert find_barriers(tab) == [] and str(seed) in tab.locator("#seed").inner_text()
            with tab.expect_download() as download:
                tab.get_by_role("link", name="Save the answers").click()
            files.append(tmp_path / f"{len(files)}.csv")
            download.value.save_as(files[-1])
            assert errors == [] and [url for url in requests if not url.startswith("blob:")] == [page.as_uri()]
            tab.close()
        browser.close()

    rows = list(csv.DictReader(files[1].open()))
    assert {row["session_seed"] for row in rows} == {str(seed)} and {row["listener"] for row in rows} == {"bob, jr"}
    assert [row["rating_stimulus"] for row in rows] == [name for trial in trials for name in trial]
    assert main(["evaluate", "--answers", *map(str, files), "-o", str(tmp_path / "sum.csv")]) == 0
    assert "2 of 2 listeners" in capsys.readouterr().out
    table = {row["sound"]: row for row in csv.DictReader((tmp_path / "sum.csv").open())}
    assert next(iter(table)) == REFERENCE and float(table[REFERENCE]["mean"]) == 100
    assert float(table[ANCHOR]["mean"]) == 20
    half_width = 12.7062 * math.sqrt(50) / math.sqrt(2)  # t(0.975, 1), standard deviation of two scores 10 apart
    for i, name in enumerate(SYSTEMS):
        assert float(table[name]["mean"]) == 35 + 4 * i
        assert float(table[name]["ci95"]) == pytest.approx(half_width, rel=1e-4)


HEAD = "session_test_id,session_uuid,trial_id,rating_stimulus,rating_score,rating_time,rating_comment\n"  # webMUSHRA's


def write(path, *rows):
    path.write_text(HEAD + "".join(f"t,{who},{trial},{name},{score},1,\n" for who, trial, name, score in rows))
    return path


def test_who_misses_the_hidden_reference_is_excluded(tmp_path, capsys):
    """Seven trials: one miss is 14 %, two are 29 %."""
    rows = []
    for trial in range(7):
        rows += [("good", trial, "reference", 80 if trial == 0 else 95), ("good", trial, "C1", 60 + trial)]
        rows += [("bad", trial, "reference", 89 if trial < 2 else 90), ("bad", trial, "C1", 5)]
    rows += [("none", 0, "C1", 1)]
    assert main(["evaluate", "--answers", str(write(tmp_path / "a.csv", *rows))]) == 0
    out = capsys.readouterr().out
    assert "excluded: bad rated the hidden reference below 90 in 2 of 7" in out
    assert "excluded: none did not rate the hidden reference" in out and "1 of 3 listeners" in out
    (line,) = (line for line in out.splitlines() if line.startswith("C1"))
    assert line.split() == ["C1", "63.0", "±", "nan", "1", "listeners"]  # the mean of 60 to 66; one has no interval


def test_intervals_are_students_t(tmp_path):
    rows = [(f"l{i}", 0, "C1", score) for i, score in enumerate((70, 80, 90, 60))]
    (rating,) = sum_up(read_answers([write(tmp_path / "a.csv", *rows)]))
    assert rating.mean == 75 and rating.listeners == 4
    assert rating.half_width == pytest.approx(3.18245 * 12.90994 / 2, rel=1e-5)


@pytest.mark.parametrize(
    "rows, message",
    [
        ([("a", 0, "C1", 101)], "must be in [0, 100]"),
        ([("a", 0, "C1", "nan")], "must be in [0, 100]"),
        ([("a", 0, "C1", 5), ("a", 0, "C1", 6)], "rated twice"),
        ([], "no column"),
        ([("a", 0, "C1", 5)], "no listener is left"),
    ],
)
def test_bad_answers_are_one_line(tmp_path, capsys, rows, message):
    path = write(tmp_path / "a.csv", *rows)
    assert main(["evaluate", "--answers", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert (
        main(["evaluate", "--answers", str(tmp_path / "absent.csv")]) == 2 and "absent.csv" in capsys.readouterr().err
    )
    assert main(["evaluate", str(path)]) == 2 and "--answers" in capsys.readouterr().err
