"""Stopped at any moment, or met by another run: finished files stay, nothing is half-written, a rerun does the rest."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from ddcm.cli.main import main
from ddcm.runtime.files import write_atomically
from tests.conftest import EXAMPLES, ROOT
from tests.helpers.forked import one_thread

COMMAND = ["reconstruct", str(EXAMPLES), "--backbone", "tiny", "--quantizer", "none", "-o"]


def leftovers(folder):
    return [path for path in folder.rglob("*") if ".part" in path.name]


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stopped_run_goes_on(tmp_path, number, code):
    """After the first file was written; forked, because a fresh process spends seconds on imports."""
    said = tmp_path / "said"

    def work():
        one_thread()
        sys.stderr = open(said, "w", buffering=1)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(main([*COMMAND, str(tmp_path / "out")]))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    until = time.monotonic() + 120
    while not list((tmp_path / "out").glob("[!.]*.wav")) and process.is_alive() and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(process.pid, number)
    process.join(120)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("[!.]*.wav")}
    assert process.exitcode == code and 1 <= len(written) < 6
    if number != signal.SIGKILL:  # which leaves no time to clear up
        lines = [line for line in said.read_text().splitlines() if line.startswith("ddcm ")]
        assert lines == ["ddcm reconstruct: interrupted; finished files stay, the same command goes on"]
        assert not leftovers(tmp_path) and "Traceback" not in said.read_text()
    assert main([*COMMAND, str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("[!.]*.wav"))) == 6
    assert all(path.stat().st_mtime_ns == at for path, at in written.items())


@pytest.mark.slow
def test_ctrl_c_at_any_moment(tmp_path):
    """From the first import to the last file: no traceback, nothing half-written, and in the end all is there."""
    rng, done = random.Random(0), 1
    while done:
        process = subprocess.Popen(
            [sys.executable, "infer.py", *COMMAND, str(tmp_path / "out")], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        try:
            process.wait(rng.uniform(0.5, 25))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
        assert process.returncode in (0, 130), said
        assert "Traceback" not in said and not leftovers(tmp_path)
        done = process.returncode


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_writers_of_one_path_do_not_meet(tmp_path, folder):
    target, errors = tmp_path / ("book" if folder else "a.txt"), []

    def write(number: int) -> None:
        try:
            for _ in range(30):
                with write_atomically(target) as temporary:
                    if folder:
                        temporary.mkdir()
                        for name in ("x", "y"):
                            (temporary / name).write_text(str(number))
                    else:
                        temporary.write_text(str(number) * 1000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and [path.name for path in tmp_path.iterdir()] == [target.name]
    texts = {path.read_text() for path in (target.iterdir() if folder else [target])}
    assert len(texts) == 1 and texts.pop() in {str(n) * (1 if folder else 1000) for n in range(4)}


def test_a_failure_leaves_nothing_and_names_the_target(tmp_path):
    long_name = tmp_path / ("n" * 251 + ".wav")
    with write_atomically(long_name) as temporary:
        temporary.write_text("as long as a name can be")
    assert long_name.is_file()
    with pytest.raises(OSError) as caught, write_atomically(tmp_path / ("n" * 300)) as temporary:
        temporary.write_text("a name that is too long")
    assert caught.value.filename == str(tmp_path / ("n" * 300))
    with pytest.raises(KeyError), write_atomically(tmp_path / "b") as temporary:
        temporary.mkdir()
        (temporary / "x").write_text("x")
        raise KeyError
    assert list(tmp_path.iterdir()) == [long_name]


def test_a_closed_pipe_is_no_traceback():
    process = subprocess.Popen(
        [sys.executable, "infer.py", "recipes"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    said = process.stderr.read()
    process.wait()
    assert b"Traceback" not in said and b"Exception" not in said
