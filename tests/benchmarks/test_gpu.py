"""The run on a GPU, rehearsed: every part with tiny networks on a CPU, its record, and the page that reads it."""

import json
import shutil
import time

import pytest

from benchmarks.gpu import page
from benchmarks.gpu.__main__ import LACKING, PARTS, main, wheels
from benchmarks.gpu.record import Record
from tests.conftest import ROOT

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu")
    main(["--smoke", "--out", str(out)])
    return out


def test_the_smoke_run_measures_every_part(smoke, tmp_path):
    data = json.loads((smoke / "results.json").read_text())
    rows = {name: part["rows"] for name, part in data["parts"].items()}
    assert set(PARTS) <= set(rows)
    missing = [row for part in rows.values() for row in part if "error" in row]
    assert all("vector_quantize_pytorch" in row["error"] for row in missing)  # an extra that tests do not need
    assert {(row["system"], row["task"]) for row in rows["verbs"]} == {
        (system, task) for system in ("stock", "ours")
        for task in ("generate", "transform", "reconstruct", "compress", "decompress")
    }  # fmt: skip
    assert all(row["s"] > 0 for row in rows["verbs"]) and {row["batch"] for row in rows["verbs"]} == {1, 2}
    pairs = {(row["made"], row["decoded"]) for row in rows["portability"]}
    assert pairs == {("cpu", "gpu"), ("gpu", "cpu"), ("cpu", "cpu"), ("gpu", "gpu")}
    assert all(row["same_bits"] for row in rows["portability"] if row["made_dtype"] == row["decoded_dtype"])
    assert rows["ranks"][0]["same_on_ranks"] and rows["ranks"][0]["difference_to_one_process"] < 1e-5
    assert rows["tests"][0]["tests"] > 0 and not rows["tests"][0]["failed"]
    shutil.copy(ROOT / "docs" / "gpu.md", tmp_path / "gpu.md")
    page.write(data, tmp_path / "gpu.md")
    text = (tmp_path / "gpu.md").read_text()
    assert all(f"## {title}\n" in text for title, *_ in page.TABLES)
    assert text.count("| generate |") == 4 and "- skipped: compiling takes minutes on a CPU" in text


def test_a_second_run_measures_what_is_missing(smoke, monkeypatch):
    before = (smoke / "results.json").read_text()
    main(["--smoke", "--out", str(smoke), "--parts", "portability", "fit"])
    again = json.loads((smoke / "results.json").read_text())
    ours = [row for row in again["parts"]["fit"]["rows"] if "error" not in row]
    assert again["parts"]["portability"] == json.loads(before)["parts"]["portability"]
    assert [row for row in json.loads(before)["parts"]["fit"]["rows"] if "error" not in row] == ours


def test_a_part_ends_at_its_share_and_an_error_is_a_row(tmp_path):
    record = Record(tmp_path / "results.json", minutes=1 / 60)

    def fail() -> dict:
        raise RuntimeError("no memory\nat all")

    def work() -> None:
        record.measure("part", fail, size=1)
        record.measure("part", lambda: {"s": 1.0}, size=2)
        record.measure("part", lambda: time.sleep(30) or {}, size=3)

    begin = time.monotonic()
    record.run("part", work, until=0.5)
    record.run("late", work, until=0.1)
    assert time.monotonic() - begin < 5
    data = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert data["part"]["rows"] == [{"size": 1, "error": "RuntimeError: no memory"}, {"size": 2, "s": 1.0}]
    assert "its time was over" in data["part"]["notes"][0] and data["late"]["notes"] == ["no time left"]
    resumed = Record(tmp_path / "results.json", minutes=1)
    resumed.measure("part", lambda: {"s": 2.0}, size=1)
    resumed.measure("part", lambda: {"s": 3.0}, size=2)
    assert sorted(row["s"] for row in resumed.rows("part")) == [1.0, 2.0]


def test_wheels_have_the_locked_versions():
    command = wheels()
    assert command.count("==") == len(LACKING) and "diffusers==" in command and "--python-version 3.12" in command
