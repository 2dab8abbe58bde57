"""README, CONTRIBUTING and docs: commands run or at least parse; links have targets; the site builds."""

import re
import runpy
import shlex
import subprocess
import sys

import pytest

pytest.importorskip("lightning")

from ddcm.cli import main as cli
from ddcm.fit.cli import main as train
from ddcm.recipes import RECIPES
from tests.conftest import ROOT
from tests.helpers.commands import PAGES, all_commands, check_command, commands

pytestmark = pytest.mark.filterwarnings("ignore")
HOWTO, TUTORIAL = ROOT / "docs" / "howto.md", ROOT / "docs" / "tutorial.md"
SHORT = {  # options that make a verb fast; the last of two equal options counts
    "transform": "--steps 2", "compress": "--steps 2",
    "fit": "--trainer.max_steps 2 --trainer.val_check_interval 1 --data.batch_size 2 --model.listen_every 0 "
           "--trainer.logger false --trainer.enable_progress_bar false --trainer.enable_model_summary false "
           "--trainer.accelerator cpu",
}  # fmt: skip


@pytest.mark.parametrize("line", all_commands())
def test_every_command_parses(line, tmp_path):
    check_command(shlex.split(line), tmp_path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder where commands run as in the project; files and recipes that they add are removed afterwards."""
    runpy.run_path(str(ROOT / "scripts" / "tutorial.py"))["link_project"](tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ddcm.evaluation.evaluate_files.installed", lambda judges=False: {})  # they take seconds
    before = dict(RECIPES)
    yield tmp_path
    RECIPES.clear()
    RECIPES.update(before)


def run(line: str, *more: str) -> None:
    """Run a command in this process, which has everything imported."""
    words = shlex.split(line)
    verb = next((word for word in words if word in SHORT), "")
    words += [*shlex.split(SHORT.get(verb, "")), *more]
    words = [word.replace("AUDIO_DIR", "examples") for word in words]
    if words[:2] == ["python", "train.py"]:
        train(words[2:])
    elif words[0] == "ddcm" or words[1] == "infer.py":
        assert cli.main(words[1 if words[0] == "ddcm" else 2 :]) == 0, line
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words[1:])
            with pytest.raises(SystemExit) as stop:
                runpy.run_path(words[1], run_name="__main__")
        assert stop.value.code == 0, line


def test_the_tutorial_runs_and_is_short(folder):
    lines = commands(TUTORIAL)
    number = next(i for i, line in enumerate(lines, 1) if "--codebook runs/fit/codebook" in line)
    assert number < 10, "the first use of an own codebook comes within nine commands"
    for line in lines[next(i for i, line in enumerate(lines) if line.startswith("pip")) + 1 :]:
        run(line)
    assert {path.name for path in (folder / "out").iterdir()} >= {"first.wav", "mine.wav", "speech.ddcm", "decoded.wav"}


def test_every_step_of_the_tutorial_shows_what_it_printed():
    steps = runpy.run_path(str(ROOT / "scripts" / "tutorial.py"))["find_steps"](TUTORIAL.read_text(encoding="utf-8"))
    shown = [step["output"] for step in steps if step["output"] is not None]
    assert len(shown) == 6 and all(shown) and sum(len(output.splitlines()) > 3 for output in shown) == 4


def test_own_quantizer_recipe_and_backbone_run(folder):
    lines = [line for line in commands(HOWTO) if "docs/examples" in line or "docs.examples" in line]
    fits = {line for line in lines if "train.py" in line}
    assert len(lines) == 6 and len(fits) == 2
    for line in lines:
        if "ProductQuantizer" in line:  # the smallest fit, for the command after it
            run(line, "--model.backbone", "tiny", "--model.quantizer.codebook_size", "16", "--model.init_batches", "1")
        elif "--codebook" in line:
            run(line, "--backbone", "tiny")
        elif line not in fits:
            run(line)
    assert {path.name for path in (folder / "out").iterdir()} == {
        "product.wav", "melted.wav", "blocks.wav", "blocks.ddcm"
    }  # fmt: skip


def test_a_missing_backbone_class_is_a_one_line_error(capsys):
    assert cli.main(["reconstruct", "examples", "-o", "x", "--backbone", "docs.examples.backbone:Bricks"]) == 2
    assert "has no attribute 'Bricks'; give module:Class" in capsys.readouterr().err


def test_python_in_the_howto_runs(folder, capsys):
    (folder / "out").mkdir()
    (code,) = re.findall(r"```python\n(.*?)```", HOWTO.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, str(HOWTO), "exec"), {})
    assert (folder / "out" / "bird.wav").is_file() and "3 steps; " in capsys.readouterr().out


def test_the_site_builds(tmp_path):
    """Strict: every page is in the navigation, every name of the reference exists, every docstring can be read."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "reference" / "index.html").read_text(encoding="utf-8")
    names = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) > 30 and all(f'id="{name}"' in html for name in names)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "LICENSES.md"], ids=lambda page: page.name)
def test_links_have_targets(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}, anchor


def test_the_index_has_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {name for name in pages if f"]({name})" not in index} == set()


@pytest.mark.slow
def test_the_tutorial_from_clone_to_decoded_file():
    """Clones the last commit, creates an environment, installs, fits and compresses."""
    subprocess.run([sys.executable, "scripts/tutorial.py", "--fresh", "--keep"], cwd=ROOT, check=True)
