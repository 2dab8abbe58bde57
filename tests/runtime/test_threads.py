"""Cores by affinity, quota and ranks; the variables of OpenMP; the time that ``generate`` takes beside other work."""

import os
import subprocess
import sys
import time

import pytest
import torch

import ddcm.runtime.threads
from ddcm.cli.main import main
from ddcm.errors import UserError
from ddcm.runtime import threads
from ddcm.runtime.threads import PASSIVE, check_processes, choose_threads, count_cores
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch):
    for name in {*threads.CHOICES, *threads.COUNTS, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_STEP_ID"}:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)


def cgroup(folder, line: str, **files: str) -> dict:
    """Arguments of ``count_cores`` with one cgroup of the process."""
    (folder / "own").write_text(line)
    controllers, _, path = line.partition(":")[2].partition(":")
    place = folder / "fs" / ("cpu" if "cpu" in controllers else "") / path[1:]
    place.mkdir(parents=True)
    for name, text in files.items():
        (place / name.replace("__", ".")).write_text(text)
    return {"cgroups": folder / "fs", "own": folder / "own"}


@pytest.mark.parametrize(
    "line, files, cores",
    [
        ("0::/job", {"cpu__max": "150000 100000\n"}, 2),
        ("0::/job", {"cpu__max": "max 100000\n"}, 6),
        ("0::/", {"cpu__max": "1000 100000\n"}, 1),
        ("4:cpu,cpuacct:/job", {"cpu__cfs_quota_us": "300000\n", "cpu__cfs_period_us": "100000\n"}, 3),
        ("4:cpu,cpuacct:/", {"cpu__cfs_quota_us": "-1\n", "cpu__cfs_period_us": "100000\n"}, 6),
        ("0::/job", {"cpu__max": "9900000 100000\n"}, 6),
        ("0::/job", {}, 6),
    ],
)
def test_cores_are_those_of_affinity_and_quota(tmp_path, line, files, cores):
    assert count_cores(**cgroup(tmp_path, line, **files)) == cores


def test_processes_of_a_node_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert count_cores(tmp_path, tmp_path) == 1


def test_a_number_or_a_variable_comes_first(monkeypatch):
    monkeypatch.setattr(threads, "count_cores", lambda: 5)
    assert choose_threads(None) == 5 and choose_threads(3) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert choose_threads(None) is None and choose_threads(3) == 3


@pytest.mark.parametrize("threads, weights, chosen", [(None, 5e6, 1), (None, 35e7, 5), (None, 0, 5), (3, 5e6, 3)])
def test_a_small_unet_gets_one_thread(monkeypatch, threads, weights, chosen):
    monkeypatch.setattr(ddcm.runtime.threads, "count_cores", lambda: 5)
    assert choose_threads(threads, weights) == chosen


@pytest.mark.parametrize(
    "verb, more, wanted", [("generate", [], 1), ("reconstruct", [], 5), ("generate", ["--threads", "3"], 3)]
)
def test_the_verbs_choose_by_the_backbone(monkeypatch, tmp_path, verb, more, wanted):
    """What torch is asked for last."""
    asked = []
    monkeypatch.setattr(ddcm.runtime.threads, "count_cores", lambda: 5)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    words = ["examples/bird.flac"] if verb == "reconstruct" else ["--duration_s", "0.64", "--steps", "2"]
    assert main([verb, *words, "-o", str(tmp_path / "a.wav"), *more]) == 0
    assert asked[-1] == wanted


@pytest.mark.parametrize("cores, most", [(1, 2), (2, 2), (5, 5)])
def test_more_processes_than_cores_are_refused(monkeypatch, cores, most):
    monkeypatch.setattr(threads, "count_cores", lambda: cores)
    check_processes("--devices", most)
    with pytest.raises(UserError, match=f"--devices {most + 1}: more processes than cores.*at most {most}$"):
        check_processes("--devices", most + 1)


SHOWN = "import os; print(*(os.environ.get(name) for name in ('OMP_WAIT_POLICY', 'KMP_BLOCKTIME', 'GOMP_SPINCOUNT')))"


@pytest.mark.parametrize(
    "before, variables, wanted",
    [
        ("import ddcm", {}, "PASSIVE 0 None"),
        ("import sys; sys.modules['torch'] = sys; import ddcm", {}, "None None None"),
        ("import ddcm", {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None None"),
        ("import ddcm", {"GOMP_SPINCOUNT": "9"}, "None None 9"),
    ],
)
def test_threads_wait_passively_unless_it_is_too_late_or_set(before, variables, wanted):
    command = [sys.executable, "-c", f"{before}; {SHOWN}"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == wanted


@pytest.mark.slow
def test_generate_beside_other_work_takes_at_most_three_times_as_long(tmp_path, monkeypatch):
    """A load of two processes for each core, against one thread alone."""
    monkeypatch.undo()

    def generate(name: str, *more: str) -> float:
        variables = {name: value for name, value in os.environ.items() if name not in {*PASSIVE, *threads.COUNTS}}
        command = [sys.executable, "infer.py", "generate", "-o", str(tmp_path / name), "--duration_s", "3", *more]
        begin = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=variables, check=True, capture_output=True)
        return time.perf_counter() - begin

    generate("warm.wav")
    alone = generate("alone.wav", "--threads", "1")
    spin = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(spin) for _ in range(2 * len(os.sched_getaffinity(0)))]
    try:
        beside = generate("beside.wav")
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert beside <= 3 * alone, f"{beside:.1f} s beside other work, {alone:.1f} s alone"
