"""Rows of recordings and systems as a table, plots and files."""

import csv
import json
import math

import pytest

from ddcm.errors import UserError
from ddcm.evaluation import plots, rate_distortion
from ddcm.evaluation.evaluate_files import mean_with_interval
from ddcm.evaluation.rate_distortion import compute_kbps, group_by_family, make_table, write_results


def row(system, file, seconds, size, **metrics):
    return dict(system=system, file=file, seconds=seconds, bytes=size, encode_s=2.0, decode_s=1.0) | metrics


ROWS = [
    row("turbo 1", "a", 1.0, 200, log_mel_mae_db=2.0, stoi=math.nan, mrstft=math.nan),
    row("turbo 1", "b", 9.0, 1100, log_mel_mae_db=4.0, stoi=0.5, mrstft=math.nan),
    row("turbo 2", "b", 9.0, 2250, log_mel_mae_db=1.0, stoi=0.9, mrstft=math.nan),
    row("opus 6", "b", 9.0, 6750, log_mel_mae_db=3.0, stoi=0.8, mrstft=math.nan),
]


def test_intervals_are_of_students_t():
    mean, half = mean_with_interval([2.0, 4.0, 9.0])
    assert mean == 5 and half == pytest.approx(4.302653 * math.sqrt(13 / 3), rel=1e-5)
    assert mean_with_interval([3.0])[0] == 3 and math.isnan(mean_with_interval([3.0])[1])
    assert all(map(math.isnan, mean_with_interval([])))


def test_the_rate_is_of_all_files_together():
    assert compute_kbps(ROWS[:2]) == pytest.approx(1300 * 8 / 10 / 1000)


def test_families_are_names_without_their_rate():
    assert list(group_by_family({"turbo 1": [], "turbo 2": [], "vq 8 atoms, levels 1": [], "ceiling": []})) == [
        "turbo", "vq 8 atoms, levels", "ceiling",
    ]  # fmt: skip


def test_the_table_has_means_with_intervals():
    """A metric without any value has no column."""
    head, _, *lines = make_table(ROWS).splitlines()
    assert head == "| system | files | kbps | Mel error, dB | STOI | encode, s/s | decode, s/s |"
    assert lines[0] == "| turbo 1 | 2 | 1.04 | 3.00 ± 12.71 | 0.50 | 0.40 | 0.20 |"
    assert lines[1] == "| turbo 2 | 1 | 2.00 | 1.00 | 0.90 | 0.22 | 0.11 |"


def test_all_files_are_written_and_earlier_ones_replaced(tmp_path, monkeypatch):
    (tmp_path / "versa").mkdir()
    (tmp_path / "versa" / "turbo-9.jsonl").write_text("{}")
    drawn = {}
    monkeypatch.setattr(rate_distortion, "draw_curves", lambda path, *texts: drawn.update({path.name: texts[-1]})
                        or plots.draw_curves(path, *texts))  # fmt: skip
    details = [{"digest": str(number)} for number in range(4)]
    table = write_results(tmp_path, ROWS, details, "About.")
    assert {path.name for path in (tmp_path / "versa").iterdir()} == {"turbo-1.jsonl", "turbo-2.jsonl", "opus-6.jsonl"}
    first = json.loads((tmp_path / "versa" / "turbo-1.jsonl").read_text().splitlines()[0])
    assert first == {"key": "a", "log_mel_mae_db": 2.0, "stoi": None, "mrstft": None}
    with open(tmp_path / "benchmark.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [(each["system"], each["stoi"], each["digest"]) for each in written][:2] == [
        ("turbo 1", "", '"0"'), ("turbo 1", "0.5", '"1"'),
    ]  # fmt: skip
    text = (tmp_path / "benchmark.md").read_text()
    assert table in text and "About." in text and "(plots/stoi.png)" in text and "mrstft" not in text
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"log_mel_mae_db.png", "stoi.png"}
    assert (tmp_path / "plots" / "stoi.png").read_bytes().startswith(b"\x89PNG")
    assert [point[:2] for point in drawn["stoi.png"]["turbo"]] == [(1.04, 0.5), (2.0, 0.9)]


def test_without_matplotlib_there_is_a_table_and_a_warning(tmp_path, monkeypatch, caplog):
    def fail():
        raise UserError("pictures need matplotlib: pip install 'ddcm[report]'")

    monkeypatch.setattr(plots, "_import_matplotlib", fail)
    write_results(tmp_path, ROWS, [{}] * 4, "About.")
    assert "need matplotlib" in caplog.text and not (tmp_path / "plots").exists()
    assert "| opus 6 | 1 | 6.00 |" in (tmp_path / "benchmark.md").read_text()
