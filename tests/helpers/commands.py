"""Find the commands of the project's pages, and pass each to the parser of its program."""

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

from ddcm.cli import fit
from ddcm.cli import main as cli
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`(python3? (?:-m \w|\w+/)[^`]*)`")  # a complete command in the text


def commands(page: Path) -> list[str]:
    """The commands of a page's blocks, without comments; those joined by ``&&`` one by one."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [part.strip() for line in lines for part in line.split("  #")[0].split(" && ") if part.strip()]


def all_commands() -> list[str]:
    """Every command of every page, in blocks and in the text."""
    inline = {line for page in PAGES for line in INLINE.findall(page.read_text(encoding="utf-8"))}
    return sorted(inline.union(*map(commands, PAGES)))


class ArgumentsParsed(Exception):
    """Raised when a program has parsed its arguments."""


def check_command(words: list[str], scratch: Path) -> None:
    """Check that the program's own parser accepts the words.

    Raises:
        UserError: the parser refuses them; SystemExit that of another program.
        KeyError: ``KNOWN`` lacks the program.
    """
    KNOWN[words[0].rpartition("/")[2]](words[1:], scratch)


def _ddcm(words: list[str], scratch: Path) -> None:
    if words[0] in fit.VERBS:
        _fit(words, scratch)
    else:
        cli.make_parser().parse_args(words)


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
    """Run a program until its arguments are parsed."""
    with pytest.MonkeyPatch.context() as patch:
        for parser in (argparse.ArgumentParser, jsonargparse.ArgumentParser):
            patch.setattr(parser, "parse_args", _stopping(parser.parse_args))
        patch.setattr(sys, "argv", words)
        with pytest.raises(ArgumentsParsed):
            start()


def _stopping(parse):
    def parse_args(*args, **kwargs):
        parse(*args, **kwargs)
        raise ArgumentsParsed

    return parse_args


def _fit(words: list[str], scratch: Path) -> None:
    """Run Lightning's command line up to the point where it creates objects."""
    from ddcm.fit.cli import FitCLI, main

    def stop(self):
        raise ArgumentsParsed

    arguments = [str(ROOT / word) if word.startswith("configs/") else word for word in words]
    if "--ckpt_path" in arguments:  # it is opened
        torch.save({}, scratch / "last.ckpt")
        arguments[arguments.index("--ckpt_path") + 1] = str(scratch / "last.ckpt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FitCLI, "before_instantiate_classes", stop)
        with pytest.raises(ArgumentsParsed):
            main(arguments)


def _torchrun(words: list[str], scratch: Path) -> None:
    from torch.distributed.run import get_args_parser

    arguments = get_args_parser().parse_args(words)
    check_command(["python", arguments.training_script, *arguments.training_script_args], scratch)


def _sbatch(words: list[str], scratch: Path) -> None:
    """Run the script with an ``srun`` that prints its arguments."""
    (scratch / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (scratch / "srun").chmod(0o755)
    path = f"{scratch}:/usr/bin:/bin"
    environment = {"PATH": path, "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "1"}
    done = subprocess.run(["bash", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    arguments = done.stdout.splitlines()
    check_command(arguments[arguments.index("python") :], scratch)


def _srun(words: list[str], scratch: Path) -> None:
    check_command(words[next(i for i, word in enumerate(words) if word in ("ddcm", "python")) :], scratch)


def _hf(words: list[str], scratch: Path) -> None:
    """Check that the help of the hub's tool has every option."""
    command = [sys.executable, "-m", "huggingface_hub.cli.hf", words[0], "--help"]
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert all(word in printed for word in words if word.startswith("--"))


def _docker(words: list[str], scratch: Path) -> None:
    if words[0] == "build":
        assert words[1:] == ["-t", "ddcm", "."] and (ROOT / "Dockerfile").is_file()
    else:
        assert words[0] == "run"
        check_command(words[words.index("ddcm") :], scratch)


def _pip(words: list[str], scratch: Path) -> None:
    assert words[0] == "install" and ("-e" not in words or words[1:4] == ["-q", "-c", "requirements.lock"])
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    extra = re.search(r"\[(.*)\]", words[-1])
    assert extra is None or set(extra[1].split(",")) <= set(extras)


def _tensorboard(words: list[str], scratch: Path) -> None:
    from tensorboard import program

    program.TensorBoard().configure(argv=["tensorboard", *words])


def _pytest(words: list[str], scratch: Path) -> None:
    from pytest_cov.plugin import CovPlugin

    with pytest.MonkeyPatch.context() as patch:  # a second measurement would never end
        patch.setattr(CovPlugin, "start", lambda *arguments: None)
        pytest.Config.fromdictargs({}, words)


def _nothing(words: list[str], scratch: Path) -> None:
    """Commands of the shell and of git are not checked."""


KNOWN = {
    "ddcm": _ddcm, "python": _python, "python3": _python, "torchrun": _torchrun, "sbatch": _sbatch, "srun": _srun,
    "docker": _docker, "hf": _hf,
    "pip": _pip, "tensorboard": _tensorboard, "pytest": _pytest, "git": _nothing, "cd": _nothing, ".": _nothing,
}  # fmt: skip
