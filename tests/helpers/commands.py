"""The commands of the project's pages: found, and given to the parser of the program that they start."""

import argparse
import os
import re
import runpy
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import jsonargparse
import pytest
import torch

from ddcm.cli import main as cli
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`(python3? (?:-m \w|\w+/)[^`]*)`")  # a whole command in the text, not a word of one


def commands(page: Path) -> list[str]:
    """The commands of a page's blocks, those that ``&&`` joins one by one, without comments."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [part.strip() for line in lines for part in line.split("  #")[0].split(" && ") if part.strip()]


def all_commands() -> list[str]:
    """Every command of every page, those in the text too."""
    inline = {line for page in PAGES for line in INLINE.findall(page.read_text(encoding="utf-8"))}
    return sorted(inline.union(*map(commands, PAGES)))


class Parsed(Exception):
    """A program has read its arguments."""


def understood(words: list[str], scratch: Path) -> None:
    """The program's own parser takes the words; what is not known here is an error.

    Raises:
        SystemExit: the parser refuses them.
        KeyError: a program that no line below is for.
    """
    KNOWN[words[0].rpartition("/")[2]](words[1:], scratch)


def _ddcm(words: list[str], scratch: Path) -> None:
    cli._parser().parse_args(words)


def _python(words: list[str], scratch: Path) -> None:
    if words[0] in ("infer.py", "train.py") or words[0].startswith("docs/examples/"):
        assert (ROOT / words[0]).is_file()
        (_fit if words[0] == "train.py" else _ddcm)(words[1:], scratch)
    elif words[0] != "-m":
        _script(lambda: runpy.run_path(str(ROOT / words[0]), run_name="__main__"), words)
    elif words[1] in ("venv", "ruff", "mypy", "mkdocs"):
        assert find_spec(words[1])
    else:
        _script(lambda: runpy.run_module(words[1], run_name="__main__"), words[1:])


def _script(start, words: list[str]) -> None:
    """Run a file up to where its arguments are parsed."""
    with pytest.MonkeyPatch.context() as patch:
        for parser in (argparse.ArgumentParser, jsonargparse.ArgumentParser):
            patch.setattr(parser, "parse_args", _stopping(parser.parse_args))
        patch.setattr(sys, "argv", words)
        with pytest.raises(Parsed):
            start()


def _stopping(parse):
    def parse_args(*args, **kwargs):
        parse(*args, **kwargs)
        raise Parsed

    return parse_args


def _fit(words: list[str], scratch: Path) -> None:
    """As far as Lightning's command line goes before it makes anything."""
    from ddcm.fit.cli import FitCLI, main

    def stop(self):
        raise Parsed

    given = [str(ROOT / word) if word.startswith("configs/") else word for word in words]
    if "--ckpt_path" in given:  # it is opened
        torch.save({}, scratch / "last.ckpt")
        given[given.index("--ckpt_path") + 1] = str(scratch / "last.ckpt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FitCLI, "before_instantiate_classes", stop)
        with pytest.raises(Parsed):
            main(given)


def _torchrun(words: list[str], scratch: Path) -> None:
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(words)
    understood(["python", given.training_script, *given.training_script_args], scratch)


def _sbatch(words: list[str], scratch: Path) -> None:
    """The script with an srun that says what it was given."""
    (scratch / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (scratch / "srun").chmod(0o755)
    path = f"{scratch}:/usr/bin:/bin"
    environment = {"PATH": path, "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "1"}
    done = subprocess.run(["bash", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    given = done.stdout.splitlines()
    understood(given[given.index("python") :], scratch)


def _srun(words: list[str], scratch: Path) -> None:
    understood(words[next(i for i, word in enumerate(words) if word in ("ddcm", "python")) :], scratch)


def _hf(words: list[str], scratch: Path) -> None:
    """The hub's own tool has every option in its help."""
    command = [sys.executable, "-m", "huggingface_hub.cli.hf", words[0], "--help"]
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert all(word in said for word in words if word.startswith("--"))


def _docker(words: list[str], scratch: Path) -> None:
    if words[0] == "build":
        assert words[1:] == ["-t", "ddcm", "."] and (ROOT / "Dockerfile").is_file()
    else:
        assert words[0] == "run"
        understood(words[words.index("ddcm") :], scratch)


def _pip(words: list[str], scratch: Path) -> None:
    assert words[0] == "install" and ("-e" not in words or words[1:4] == ["-q", "-c", "requirements.lock"])
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.search(r"\[(.*)\]", words[-1])
    assert asked is None or set(asked[1].split(",")) <= set(extras)


def _tensorboard(words: list[str], scratch: Path) -> None:
    from tensorboard import program

    program.TensorBoard().configure(argv=["tensorboard", *words])


def _pytest(words: list[str], scratch: Path) -> None:
    from pytest_cov.plugin import CovPlugin

    with pytest.MonkeyPatch.context() as patch:  # a second measurement would never end
        patch.setattr(CovPlugin, "start", lambda *arguments: None)
        pytest.Config.fromdictargs({}, words)


def _nothing(words: list[str], scratch: Path) -> None:
    """Of the shell or of git: there is no parser to ask."""


KNOWN = {
    "ddcm": _ddcm, "python": _python, "python3": _python, "torchrun": _torchrun, "sbatch": _sbatch, "srun": _srun,
    "docker": _docker, "hf": _hf,
    "pip": _pip, "tensorboard": _tensorboard, "pytest": _pytest, "git": _nothing, "cd": _nothing, ".": _nothing,
}  # fmt: skip
