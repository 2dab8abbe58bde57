"""``ddcm benchmark``: rows that are kept, taken again or measured anew; the table; broken recordings and systems."""

import csv
import json
import math
import shlex

import numpy as np
import pytest
import soundfile
import torch

from ddcm.cli.main import main
from ddcm.errors import UserError
from ddcm.evaluation.benchmark import Benchmark, read_stored
from ddcm.evaluation.peers import ENCODERS, Decoded, System, find_encoders
from ddcm.evaluation.perceptual import JUDGES, PERCEPTUAL, installed
from ddcm.pipeline import DDCMPipeline
from tests.conftest import EXAMPLES

TINY = ["--backbone", "tiny", "--steps", "2", "--mel_weight", "0"]


@pytest.fixture
def recordings(tmp_path):
    """Two short recordings in two folders, of two rates and kinds, and a broken one."""
    samples, rate = soundfile.read(EXAMPLES / "speech.flac", frames=16000)
    for name in ("a.wav", "inside/b.flac"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / name, np.stack([samples[:8000]] * 2, 1) if name[0] == "a" else samples, rate)
    (tmp_path / "in" / "broken.wav").write_bytes(b"RIFF, but nothing else")
    return tmp_path / "in"


@pytest.fixture
def calls(monkeypatch):
    """Seconds of what is compressed. A number in ``calls.fails`` is that of the call that is interrupted."""

    class Calls(list):
        fails = 0

    made, real = Calls(), DDCMPipeline.compress

    def compress(self, audio, *rest, **more):
        made.append(len(audio) / 16000)
        if len(made) == made.fails:
            raise KeyboardInterrupt
        return real(self, audio, *rest, **more)

    monkeypatch.setattr(DDCMPipeline, "compress", compress)
    return made


@pytest.fixture(autouse=True)
def _no_plots(request, monkeypatch):
    """Empty files in place of plots, which one test draws: they take longer than the rest."""
    if request.function is not test_a_folder_with_a_broken_file:
        monkeypatch.setattr(
            "ddcm.evaluation.rate_distortion.draw_curves",
            lambda path, *_: (path.parent.mkdir(parents=True, exist_ok=True), path.touch()),
        )


def run(recordings, *more: str) -> int:
    return main(["benchmark", str(recordings), "-o", str(recordings.parent / "out"), "--peers", *more, *TINY])


def table(recordings) -> list[dict]:
    with open(recordings.parent / "out" / "benchmark.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_with_a_broken_file(recordings, capsys):
    assert run(recordings, "--kbps", "4", "8") == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if "ddcm benchmark" in line]
    assert len(lines) == 1 and "broken.wav" in lines[0] and "1 of 3 files failed, 2 written" in printed.err
    rows = table(recordings)
    assert [(row["system"], row["file"]) for row in rows] == [
        ("turbo 4", "a.wav"), ("turbo 4", "inside/b.flac"), ("turbo 8", "a.wav"), ("turbo 8", "inside/b.flac"),
    ]  # fmt: skip
    assert not set(rows[0]) & {*PERCEPTUAL, *JUDGES} and json.loads(rows[0]["conditions"])["mel_weight"] == 0
    out = recordings.parent / "out"
    kbps = sum(int(row["bytes"]) for row in rows[:2]) * 8 / sum(float(row["seconds"]) for row in rows[:2]) / 1000
    errors = [float(row["log_mel_mae_db"]) for row in rows[:2]]
    line = next(line for line in (out / "benchmark.md").read_text().splitlines() if line.startswith("| turbo 4 "))
    assert line.startswith(f"| turbo 4 | 2 | {kbps:.2f} | {sum(errors) / 2:.2f} ± ") and line in printed.out
    assert {path.name for path in out.iterdir() if path.name[0] != "."} == {
        "benchmark.csv", "benchmark.md", "manifest.csv", "plots", "rows", "versa",
    }  # fmt: skip
    assert {path.name for path in (out / "versa").iterdir()} == {"turbo-4.jsonl", "turbo-8.jsonl"}
    assert (out / "plots" / "log_mel_mae_db.png").is_file() and not (out / "rows" / "broken.jsonl").exists()


def test_rows_are_measured_again_if_what_they_depend_on_changes(recordings, calls):
    (recordings / "broken.wav").unlink()
    assert run(recordings, "--kbps", "4") == 0 and len(calls) == 2
    first = table(recordings)
    assert run(recordings, "--kbps", "4") == 0 and len(calls) == 2  # the same command
    assert table(recordings) == first
    assert run(recordings, "--kbps", "4", "8") == 0 and len(calls) == 4  # a rate more
    assert run(recordings, "--kbps", "8") == 0 and len(calls) == 4 and len(table(recordings)) == 2  # one of them
    (recordings / "a.wav").write_bytes((recordings / "inside" / "b.flac").read_bytes())
    assert run(recordings, "--kbps", "4", "8") == 0 and len(calls) == 6  # another recording of that name
    assert run(recordings, "--kbps", "8", "--seconds", "0.2") == 0 and calls[6:] == [0.2, 0.2]  # another length
    assert run(recordings, "--kbps", "8", "--seconds", "0.2", "--seed", "1") == 0 and len(calls) == 10
    assert run(recordings, "--kbps", "8", "--seconds", "0.2", "--seed", "1", "--overwrite") == 0 and len(calls) == 12


def test_an_interrupted_run_goes_on(recordings, calls, capsys):
    (recordings / "broken.wav").unlink()
    calls.fails = 4
    assert run(recordings, "--kbps", "4", "8") == 130 and "the same command goes on" in capsys.readouterr().err
    stored = recordings.parent / "out" / "rows"
    before = {path.name: path.read_bytes() for path in stored.rglob("*.jsonl")}
    assert [len(content.splitlines()) for content in before.values()] in ([2, 1], [1, 2])
    assert not (recordings.parent / "out" / "benchmark.csv").exists()
    assert run(recordings, "--kbps", "4", "8") == 0 and len(calls) == 5 and len(table(recordings)) == 4
    assert all((stored.rglob(name).__next__()).read_bytes().startswith(content) for name, content in before.items())


@pytest.mark.parametrize(
    "more, says",
    [
        (["--kbps", "-1"], "kbps -1.0 is not a positive number"),
        (["--seconds", "0"], "--seconds 0.0 is not a positive number"),
        (["--modes", "vq"], "mode vq needs a fitted codebook: name one with --codebook"),
        (["--modes", "fast"], "'fast'"),
        (["--peers", "no/such-codec"], "no/such-codec: not readable as EnCodec or DAC"),
        (["--peers", "ENCODEC", "--peer_kbps", "6"], "has none of these rates; it has, for example, 0.6, 1.2"),
        (["--peers", "ENCODEC", "ENCODEC"], "two systems are named encodec 0.6"),
    ],
)
def test_what_cannot_be_is_one_line(recordings, neural_codecs, more, says, capsys):
    more = [word.replace("ENCODEC", str(neural_codecs / "encodec")) for word in more]
    assert run(recordings, *more) == 2
    error = capsys.readouterr().err.strip()
    assert says in error and len(error.splitlines()) == 1 and not (recordings.parent / "out").exists()


def test_other_codecs_stand_in_the_same_table(recordings, neural_codecs):
    (recordings / "broken.wav").unlink()
    peers = ["--peers", str(neural_codecs / "encodec"), str(neural_codecs / "dac"), "--peer_kbps", "0.2", "1.2"]
    assert run(recordings, "--kbps", "4", *peers) == 0
    assert {row["system"]: len(json.loads(row["conditions"])["metrics"]) for row in table(recordings)} == {
        "turbo 4": 6, "encodec 1.2": 6, "dac 0.2": 6,
    }  # fmt: skip


def fake(name: str, error: str = "") -> System:
    def code(audio: torch.Tensor, on_step) -> Decoded:
        if error:
            raise UserError(error)
        return Decoded(audio * 0.5, 100, 1.0, 1.0)

    return System(name, {"codec": name}, code)


def test_a_system_that_fails_does_not_stop_the_others(tmp_path):
    store, steps = tmp_path / "rows.jsonl", []
    benchmark = Benchmark([fake("first 1"), fake("bad 1", "no such rate"), fake("last 1")])
    with pytest.raises(UserError, match=r"^bad 1: no such rate$"):
        benchmark.measure_recording(EXAMPLES / "bird.flac", "bird", store, on_step=lambda *step: steps.append(step))
    assert [row["system"] for row in read_stored(store)] == ["first 1", "last 1"]
    numbers, details = benchmark.collect([store, tmp_path / "none.jsonl"])
    assert numbers[0]["log_mel_mae_db"] == pytest.approx(0, abs=1e-3) and "digest" in details[0]
    assert steps == sorted(steps) and steps[-1][0] == steps[-1][1]


def test_rows_of_other_metrics_and_damaged_rows_do_not_count(tmp_path, monkeypatch):
    """NaN survives the file, in which it is null."""
    store = tmp_path / "rows.jsonl"
    monkeypatch.setattr("ddcm.evaluation.evaluate_files.installed", lambda judges: {"stoi": lambda a, b: math.nan})
    monkeypatch.setattr("ddcm.evaluation.benchmark.installed", lambda judges: {"stoi": None})
    speech = Benchmark([fake("first 1")], speech=True)
    speech.measure_recording(EXAMPLES / "bird.flac", "bird", store)
    assert math.isnan(speech.collect([store])[0][0]["stoi"]) and '"stoi": null' in store.read_text()
    assert Benchmark([fake("first 1")]).collect([store]) == ([], [])
    for text in ("[1]\n", "{}\n", "{\n", "\0"):
        store.write_text(text)
        assert speech.collect([store]) == ([], [])


def test_the_line_of_the_howto_runs(tmp_path, monkeypatch):
    """With the metrics for speech by name alone: they take seconds."""
    if not {each.name for each in ENCODERS.values()} <= find_encoders():
        pytest.skip("no ffmpeg with its encoders")
    howto = (EXAMPLES.parent / "docs" / "howto.md").read_text(encoding="utf-8")
    line = next(line for line in howto.splitlines() if line.startswith("ddcm benchmark") and "hf" not in line)
    monkeypatch.setattr("ddcm.evaluation.evaluate_files.installed", lambda judges: dict.fromkeys(names, min_of))
    words = shlex.split(line)[1:]
    words = [str(EXAMPLES / "speech.flac") if word == "AUDIO_DIR" else word for word in words]
    words[words.index("-o") + 1] = str(tmp_path / "out")
    names = [*installed(judges=True)]
    assert main([*words, "--steps", "2", "--seconds", "0.3"]) == 0
    with open(tmp_path / "out" / "benchmark.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["system"].split(" ")[0] for row in rows} == {"turbo", "vq", "opus", "codec2"}
    assert all(row[name] == "0.25" for row in rows for name in names)


def min_of(reference, estimate) -> float:
    return 0.25
