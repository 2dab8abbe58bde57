"""The first line comes before anything heavy is loaded, errors that can be seen early too; bars move to the end."""

import subprocess
import sys
import time
import warnings

import pytest

from ddcm.cli.main import NAMES, main
from ddcm.errors import UserError
from ddcm.fit.arguments import check_root
from ddcm.runtime import progress
from ddcm.runtime.progress import progress_bar
from ddcm.runtime.quiet import silence_libraries
from tests.conftest import EXAMPLES, ROOT

BIRD = "examples/bird.flac"
FIRST = {  # command -> how its first line begins
    f"reconstruct {BIRD} -o OUT/a.wav": "loading", f"transform {BIRD} -o OUT/a.wav": "loading",
    f"transform {BIRD} -o OUT --devices 2": "loading", "generate rain -o OUT/a.wav": "loading",
    "generate rain --compressed -o OUT/b.wav": "loading", f"compress {BIRD} -o OUT/a.ddcm": "loading",
    "decompress tests/data/version_0_1/turbo_1_kbps.ddcm -o OUT/a.wav": "loading",
    f"compare {BIRD} -o OUT/a": "loading", f"benchmark {BIRD} -o OUT/c": "loading", 
    f"evaluate {BIRD} {BIRD}": "loading",
    "inspect checkpoints/pocket": "loading", "serve": "loading", "recipes": "matched: reconstruct",
    "fit -c fit.yaml --data.root examples": "loading", "validate --data.root examples": "loading",
    "test --data.root examples": "loading", "--version": "ddcm ", "--help": "usage: ddcm",
    "reconstruct absent.wav -o OUT/a.wav": "ddcm reconstruct: absent.wav: no such file",
    "decompress absent.ddcm": "ddcm decompress: absent.ddcm: no such file",
    "compare absent.wav -o OUT": "ddcm compare: absent.wav: no such file",
    "evaluate absent examples": "ddcm evaluate: absent: no such file",
    "transform examples -o OUT --recipe input-basd": "ddcm transform: recipe 'input-basd' is not known",
    "generate rain --steps 0": "ddcm generate: steps 0 is outside",
    f"compress {BIRD} --kbps -1": "ddcm compress: kbps -1.0 is not a positive number",
    "reconstruct examples -o OUT --threads 0": "ddcm reconstruct: --threads 0 is less than 1",
    "fit -c fit.yaml": "error: --data.root is missing", "fit --data.root absent": "error: --data.root absent: no such",
}  # fmt: skip
PROGRAM = """
import os, sys
from ddcm.cli.main import main

class Terminal:
    encoding = "utf-8"
    isatty = lambda self: True
    flush = lambda self: None
    def write(self, text):
        if text.strip():
            heavy = sorted({"torch", "numpy", "lightning", "gradio"} & set(sys.modules))
            os.write(1, f"{text.strip().splitlines()[0]} | {heavy}\\n".encode())
            os._exit(0)

for command in sys.argv[1:]:
    if os.fork() == 0:
        sys.stdout = sys.stderr = Terminal()
        main(command.split())
        os._exit(1)
    os.wait()
"""


@pytest.fixture(scope="module")
def first_lines(tmp_path_factory):
    """Command -> its first line, on a terminal, and the heavy packages that were loaded then."""
    out = str(tmp_path_factory.mktemp("out"))
    words = [command.replace("OUT", out) for command in FIRST]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(FIRST), done.stdout + done.stderr
    return dict(zip(FIRST, lines, strict=True))


@pytest.mark.parametrize("command", FIRST)
def test_the_first_line_comes_before_heavy_packages(first_lines, command):
    line, _, heavy = first_lines[command].rpartition(" | ")
    assert line.startswith(FIRST[command]) and heavy == "[]"


def test_every_verb_was_tried():
    assert {command.split()[0] for command in FIRST} >= {*NAMES, "fit", "validate", "test"}


class Terminal:
    """A stream that is a terminal and keeps what is written."""

    encoding = "utf-8"

    def __init__(self):
        self.texts: list[str] = []

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.texts.append(text)

    def flush(self) -> None:
        pass


def test_a_bar_goes_from_loading_to_the_last_step_of_the_last_file(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    command = ["transform", str(EXAMPLES / "bird.flac"), str(EXAMPLES / "speech.flac"), "-o", str(tmp_path)]
    assert main([*command, "--backbone", "tiny", "--quantizer", "none", "--steps", "4"]) == 0
    text = "".join(terminal.texts)
    assert text.index("loading:   0%") < text.index("bird.flac") < text.index("speech.flac")
    assert "1 of 2 done, step " in text and "speech.flac: 100%" in text and "2 of 2 done" in text


def test_the_time_moves_while_a_step_takes_long(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "REDRAW_S", 0.01)
    with progress_bar(2) as bar:
        bar.begin("a.wav")
        drawn = len(terminal.texts)
        deadline = time.monotonic() + 60
        while len(terminal.texts) < drawn + 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(terminal.texts) >= drawn + 4
        bar.finish()
    assert "1 of 2 done" in "".join(terminal.texts)


def test_without_a_terminal_no_bar_is_drawn(capsys):
    with progress_bar() as bar:
        bar.on_step(1, 2)
        bar.finish()
    assert capsys.readouterr().err == ""


def test_warnings_of_other_packages_are_silent():
    with warnings.catch_warnings(record=True) as seen:
        silence_libraries()
        warnings.warn("an advert", UserWarning, stacklevel=1)
    assert not seen


@pytest.mark.parametrize(
    "words",
    [["--data.root={}"], ["--data.root", "{}"], ["-c", "{}/fit.yaml"], ["--data", "a.Class"],
     ["--data.root", "absent", "--help"], ["--print_config"]],
)  # fmt: skip
def test_a_root_that_exists_or_is_not_for_the_early_check(tmp_path, words):
    (tmp_path / "fit.yaml").write_text("data:\n  root: somewhere\n")
    check_root(["fit", *(word.format(tmp_path) for word in words)])


def test_a_configuration_without_a_root_is_refused(tmp_path):
    (tmp_path / "fit.yaml").write_text("data:\n  seed: 1\n")
    with pytest.raises(UserError, match="missing"):
        check_root(["fit", "-c", str(tmp_path / "fit.yaml")])
