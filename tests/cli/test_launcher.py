"""Folders shared out over processes: the same bytes as one process, whatever is killed, broken or finished before."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ddcm.cli import launcher, run_log
from ddcm.cli.main import main
from ddcm.runtime import distributed
from ddcm.runtime.files import remove_leftovers
from ddcm.runtime.ranks import read_launched_rank
from tests.conftest import ROOT
from tests.helpers.commands import check_command

# This backbone needs neither diffusers nor transformers: a fresh process would spend most of its time on them.
OPTIONS = ["--backbone", "docs.examples.backbone:Blocks", "--quantizer", "none", "--steps", "4", "--threads", "1"]
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS",
             "SLURM_PROCID", "SLURM_LOCALID", "DDCM_FINISHED")  # fmt: skip


@pytest.fixture(autouse=True)
def _not_launched(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def folder_of(path, count: int, seconds: float = 0.1):
    """Short recordings of several lengths in two folders, the last of them broken."""
    rng = np.random.default_rng(0)
    for number in range(count):
        file = path / f"{number % 2}" / f"{number:03d}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, 0.1 * rng.standard_normal(round(16000 * seconds * (1 + number % 3))), 16000)
    (path / "broken.wav").write_bytes(b"RIFF, but nothing else")
    return path


def contents(out) -> dict[str, bytes]:
    # Hidden names are of files being written, which go away meanwhile.
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("[!.]*.wav")}


def rows_of(out) -> list[dict]:
    with open(out / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def command(source, out, *more: str) -> list[str]:
    return ["transform", str(source), "-o", str(out), *OPTIONS, *more]


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "infer.py", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def test_two_processes_write_the_bytes_of_one(tmp_path):
    source = folder_of(tmp_path / "in", 12)
    assert main(command(source, tmp_path / "one")) == 2
    both = start(*command(source, tmp_path / "two", "--devices", "2"))
    stderr = both.communicate()[1]
    assert both.returncode == 2, stderr
    assert contents(tmp_path / "two") == contents(tmp_path / "one") and len(contents(tmp_path / "two")) == 12
    assert stderr.count("ddcm transform:") == 1 and "1 of 13 files failed, 12 written" in stderr
    rows = rows_of(tmp_path / "two")
    assert len(rows) == 13 and len(list((tmp_path / "two" / ".run").glob("rank-*.jsonl"))) == 2
    good = [row for row in rows if row["status"] == "written"]
    assert len(good) == 12 and {float(row["seconds"]) for row in good} == {0.1, 0.2, 0.3}
    assert json.loads(good[0]["settings"])["steps"] == 4 and json.loads(good[0]["notes"])["unet_steps"] == 2
    assert [(row["file"], row["status"]) for row in rows] == [
        (r["file"], r["status"]) for r in rows_of(tmp_path / "one")
    ]


@pytest.mark.slow
def test_killed_and_rerun_is_the_same_set(tmp_path):
    source = folder_of(tmp_path / "in", 40, seconds=2.0)
    out = tmp_path / "out"
    killed = start(*command(source, out, "--devices", "2"))
    while len(contents(out)) < 5:
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    time.sleep(1)  # the processes that it started notice
    before = contents(out)
    time.sleep(2)
    assert contents(out) == before and 5 <= len(before) < 40
    assert all(soundfile.info(out / name).frames % 32000 == 0 for name in before)
    times = {name: (out / name).stat().st_mtime_ns for name in before}
    again = start(*command(source, out, "--devices", "2"))
    again.communicate()
    assert again.returncode == 2
    assert main(command(source, tmp_path / "one")) == 2
    assert contents(out) == contents(tmp_path / "one")
    assert all((out / name).stat().st_mtime_ns == times[name] for name in times)  # finished work was not done again
    assert not [path for path in out.rglob(".*") if ".part" in path.name] and len(rows_of(out)) == 41


def workers_of(process: subprocess.Popen) -> list[int]:
    """The processes that ``--devices`` started."""
    found = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.skipif(not shutil.which("pgrep"), reason="no pgrep")
def test_a_dead_process_is_started_again(tmp_path):
    source, out = folder_of(tmp_path / "in", 16, seconds=2.0), tmp_path / "out"
    process = start(*command(source, out, "--devices", "2"))
    while len(contents(out)) < 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    times = {name: (out / name).stat().st_mtime_ns for name in contents(out)}
    os.kill(workers_of(process)[-1], signal.SIGKILL)
    stderr = process.communicate()[1]
    assert process.returncode == 2 and "1 of 17 files failed, 16 written" in stderr, stderr  # the broken one
    assert len(contents(out)) == 16 and len(rows_of(out)) == 17
    assert all((out / name).stat().st_mtime_ns == times[name] for name in times)  # finished work was not done again


@pytest.mark.skipif(not shutil.which("pgrep"), reason="no pgrep")
@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_an_interrupt_ends_every_process_at_once(tmp_path, number, code):
    source, out = folder_of(tmp_path / "in", 24, seconds=2.0), tmp_path / "out"
    process = start(*command(source, out, "--devices", "2"))
    while len(list((out / ".run").glob("rank-*.jsonl"))) < 2:  # both are at work
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    workers = workers_of(process)
    process.send_signal(number)
    stderr = process.communicate(timeout=25)[1]  # torch kills what has not ended after 30 s
    assert process.returncode == code and "interrupted; finished files stay" in stderr and "Traceback" not in stderr
    assert len(workers) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert not [path for path in out.rglob(".*") if ".part" in path.name]


def test_compress_and_decompress_are_recorded_too(tmp_path):
    source = folder_of(tmp_path / "in", 2, seconds=0.3)
    tiny = ["--backbone", "tiny", "--threads", "1"]
    assert main(["compress", str(source), "-o", str(tmp_path / "small"), "--kbps", "4", *tiny]) == 2
    assert main(["decompress", str(tmp_path / "small"), "-o", str(tmp_path / "back"), *tiny]) == 0
    assert [row["status"] for row in rows_of(tmp_path / "back")] == ["written"] * 2
    assert all(json.loads(row["notes"])["bytes"] for row in rows_of(tmp_path / "small") if row["status"] == "written")


def test_files_are_shared_out_by_cost():
    costs = [1.0, 9.0, 2.0, 2.0, 2.0, 2.0, 0.0]
    shares = [distributed.split_by_cost(costs, rank, 2) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == list(range(7))
    loads = [sum(costs[place] for place in share) for share in shares]
    assert max(loads) == 9.0 and shares[0][0] == 1


@pytest.mark.slow
def test_a_benchmark_prints_the_table_of_all_its_processes(tmp_path):
    folder_of(tmp_path / "in", 2, 0.3)
    words = ["benchmark", str(tmp_path / "in" / "0"), "-o", str(tmp_path / "out"), "--backbone", "tiny", "--kbps", "4",
             "--steps", "2", "--peers", "--devices", "2"]  # fmt: skip
    done = subprocess.run([sys.executable, "infer.py", *words], cwd=ROOT, capture_output=True, text=True)
    table = [line for line in (tmp_path / "out" / "benchmark.md").read_text().splitlines() if line.startswith("|")]
    assert len(table) == 3 and "\n".join([*table, str(tmp_path / "out" / "benchmark.md")]) in done.stdout


@pytest.mark.parametrize(
    "environment, devices, nodes, ranks",
    [
        ({}, 1, 1, []),
        ({}, 3, 1, [0, 1, 2]),
        ({"WORLD_SIZE": "4", "RANK": "2"}, 4, 1, []),  # torchrun with a process for each device
        ({"WORLD_SIZE": "4", "RANK": "2"}, 1, 1, []),
        ({"NODE_RANK": "1"}, 2, 2, [2, 3]),
        ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, 2, 2, [2, 3]),  # srun with one on each node
        ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_PROCID": "1"}, 2, 2, []),  # srun with one for each device
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, 1, 1, []),  # a batch script is one process
    ],
)
def test_who_starts_whom(monkeypatch, environment, devices, nodes, ranks):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launcher.processes_to_start(devices, nodes) == ranks
    if environment == {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}:
        assert read_launched_rank() == (0, 1)


@pytest.mark.parametrize(
    "environment, more, says",
    [
        ({}, ["--devices", "0"], "at least 1"),
        ({}, ["--devices", "2", "--num_nodes", "2"], "set NODE_RANK"),
        ({"WORLD_SIZE": "3", "RANK": "0"}, ["--devices", "2", "--num_nodes", "2"], "3 were launched"),
        ({}, ["--threads", "0"], "--threads 0"),
        ({}, ["--devices", "9999", "--device", "cpu"], "--devices 9999: more processes than cores"),
    ],
)
def test_bad_numbers_are_refused(tmp_path, monkeypatch, capsys, environment, more, says):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(command(ROOT / "examples", tmp_path / "out", *more)) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_what_a_kill_tears_is_left_out(tmp_path):
    first = run_log.RunLog(tmp_path, 0, "transform", {})
    first.add(tmp_path / "a", tmp_path / "a.wav", "written", 1.0, 0.1, {}, 2)
    part = tmp_path / ".run" / "rank-0000.jsonl"
    part.write_bytes(part.read_bytes() + b'{"file": "b", "outp')
    run_log.RunLog(tmp_path, 0, "transform", {}).add(tmp_path / "b", tmp_path / "b.wav", "written", 1.0, 0.1, {}, 2)
    run_log.write_table(tmp_path)
    assert [row["output"] for row in rows_of(tmp_path)] == ["a.wav", "b.wav"]


def test_only_what_dead_processes_left_is_swept(tmp_path):
    mine, dead = (tmp_path / f".a.{pid}-00ab.part.wav" for pid in (os.getpid(), 2**22 + 1))
    for path in (mine, dead):
        path.touch()
    remove_leftovers(tmp_path / "a.wav")
    assert mine.exists() and not dead.exists()


GUIDE = (ROOT / "docs" / "audioldm2.md").read_text(encoding="utf-8")
LINES = re.findall(r"^(?:srun .*?|torchrun .*?)?(?:ddcm|infer\.py) (.+)$", GUIDE, re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_the_guides_commands_are_understood(line, tmp_path):
    check_command(["ddcm", *shlex.split(line)], tmp_path)


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_the_slurm_script_starts_a_folder(tmp_path):
    (tmp_path / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    done = subprocess.run(
        ["bash", "docs/folder.slurm", "transform", "my audio", "-o", "out"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["python", "infer.py", "transform", "my audio", "-o", "out"]
