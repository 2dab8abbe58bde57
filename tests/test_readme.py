"""Every command in the README and on the page of commands runs, and every path in them exists."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from ddcm.audio.files import read_audio, write_audio
from ddcm.cli import main as cli
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
LINES = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README + COMMANDS, re.DOTALL)
    for line in block.splitlines()
]
# These need a network, a fit or the line before them, or do not end (tests/app/test_server.py tests serve).
ELSEWHERE = ("cvssp", "runs/", ".ddcm", "compress", "serve")
VERBS = sorted({line for line in LINES if re.match("ddcm (?!fit)", line)})  # test_pages.py has those of fit


def test_ci_runs_the_readmes_test_command():
    command = next(line for line in LINES if line.endswith("pytest"))
    assert command in (ROOT / ".ci" / "run").read_text()


def test_the_first_command_installs_and_transforms():
    command = next(line for line in LINES if line.startswith("python3 -m venv"))
    *_, install, verb = command.split(" && ")
    assert install == ".venv/bin/pip install -q -c requirements.lock -e ."
    assert verb.removeprefix(".venv/bin/") == "ddcm transform examples -o out"


@pytest.mark.parametrize("line", [*VERBS, "ddcm transform examples -o out"])
def test_verbs_parse(line):
    """The parser accepts every line, and its inputs exist or are outputs of other lines."""
    arguments = cli.make_parser().parse_args(shlex.split(line)[1:])
    for path in arguments[arguments.verb].get("inputs", []):
        assert path.startswith("out/") or (ROOT / path).exists()


@pytest.mark.parametrize("line", [line for line in VERBS if not any(name in line for name in ELSEWHERE)])
def test_verbs_run(line, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.main(shorten(line, tmp_path)) == 0
    if " -o " in line:
        made = "benchmark.md" if line.startswith("ddcm benchmark") else "*.wav"
        assert any(path.is_file() for path in (tmp_path / "out").rglob(made))


def shorten(line: str, folder: Path) -> list[str]:
    """A command's words with outputs in the folder, few steps, and one example or half a second of it."""
    words = shlex.split(line)[1:]
    if "-o" in words:
        at = words.index("-o") + 1
        words[at] = str(folder / words[at])
        if words[0] in ("transform", "benchmark"):
            words += ["--steps", "3"]
        if words[0] == "generate":
            words += ["--steps", "3", "--duration_s", "1"]
        if words[1] == "examples":
            words[1] = "examples/bird.flac"
        if words[0] == "compare":
            write_audio(folder / "short.wav", read_audio(words[1])[:8000], 16000)
            words[1] = str(folder / "short.wav")
    return words


def test_the_codecs_lines_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    codec = [line for line in LINES if line.startswith("ddcm ") and (".ddcm" in line or "compress" in line)]
    assert {line.split()[1] for line in codec} == {"compress", "decompress", "inspect", "generate"}
    for line in codec:
        words = [word.replace("out/", f"{tmp_path}/") for word in shlex.split(line)[1:]]
        words = ["examples/bird.flac" if word.startswith("examples") else word for word in words]
        if words[0] in ("compress", "generate"):
            words += ["--steps", "2"]
        assert cli.main(words) == 0, line


def test_the_python_example_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", COMMANDS, re.DOTALL)
    monkeypatch.chdir(tmp_path)  # the example's recording is the package's
    names: dict = {}
    exec(re.sub(r"steps=\d+", "steps=2", code), names)
    assert (tmp_path / "out/menu.wav").is_file() and [path.name for path in names["clips"]] == ["1.wav", "2.wav"]
    assert len(names["out"].audios) == 1 and names["data"].startswith(b"ddcm")


def test_paths_that_the_readme_names_exist():
    names = re.findall(r"`((?:checkpoints|configs|examples|pocket)/[^`*]*)`", README + COMMANDS)
    for path in re.findall(r"\]\(([^)#:]+)\)", README) + names:
        assert (ROOT / path).exists(), path


def test_the_readme_is_short():
    """Three sentences, a picture, two commands, one table."""
    text = README.split("\n\n")
    assert len(re.findall(r"\.(?:\s|$)", text[1])) == 3 and text[2].startswith("![")
    assert README.count("```bash\n") == 2 and README.count("|---|") == 1 and len(README.splitlines()) < 60


def test_the_picture_is_drawn_by_its_command(tmp_path, monkeypatch):
    command = next(c for c in re.findall(r"`(python [^`]*)`", README) if "picture" in c)
    target = tmp_path / "picture.png"
    words = [*shlex.split(command)[1:], "--audio", "examples/bird.flac", "--steps", "2", "--out", str(target)]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", words)  # in this process, which has everything imported
    runpy.run_path(words[0], run_name="__main__")
    assert target.read_bytes().startswith(b"\x89PNG") and target.stat().st_size > 20_000


def test_the_model_card_has_its_numbers():
    card = (ROOT / "checkpoints" / "pocket" / "README.md").read_text(encoding="utf-8")
    measured = card[card.index("<!-- pocket.evaluate -->") : card.index("<!-- end of pocket.evaluate -->")]
    row = next(line for line in measured.splitlines() if line.startswith("| VAE round trip, mel domain"))
    assert 0 < float(row.split("|")[-2]) <= 1.5


def test_nothing_names_a_registry_or_a_local_path():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock and "@" not in lock and "torch==2.11" in lock
