"""Run the commands of docs/tutorial.md in order, and write their output under them.

    python scripts/tutorial.py            # in this environment, without the setup
    python scripts/tutorial.py --fresh    # all of it: clone, new environment, install (minutes)
    python scripts/tutorial.py --keep     # only run them; do not change the page

Commands run in a temporary folder with links to the project's files.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "tutorial.md"
STEP = re.compile(r"```bash\n(?P<commands>.*?)```\n(?:\n```text\n(?P<output>.*?)```\n)?", re.DOTALL)
MARK = "--- the next step ---"
NOTICES = re.compile(  # Lightning's table of the module, its bar, its tips
    r"^\s*$|^[┏┃┡│└]|^ {20}|it/s|^(Trainable|Non-trainable|Total) |^Modules in|`Trainer|^(GPU|TPU|HPU|INFO|💡)"
)
LEFT_OUT = {"runs", "out", ".git", ".venv"}


def find_steps(page: str) -> list[re.Match]:
    """Every block of commands, the setup first, with the output under it."""
    return list(STEP.finditer(page))


def list_commands(page: str) -> list[str]:
    """Every command of the page."""
    return [line for step in find_steps(page) for line in step["commands"].splitlines()]


def link_project(folder: Path) -> None:
    """Link the project's files into ``folder``, so that commands write there and not into the project."""
    for entry in ROOT.iterdir():
        if entry.name not in LEFT_OUT:
            (folder / entry.name).symlink_to(entry)


def run(blocks: list[str], folder: Path, environment: dict[str, str]) -> list[str]:
    """The standard output of each block. One shell runs all of them, because they change folder and environment.

    Raises:
        SystemExit: a command failed.
    """
    script = f"\necho '{MARK}'\n".join(blocks)
    done = subprocess.run(["bash", "-e"], input=script, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}\nexit code {done.returncode}")
    return [clean(part) for part in done.stdout.split(f"{MARK}\n")]


def clean(printed: str) -> str:
    """The text without progress bars, which overwrite their line, and without Lightning's notices."""
    lines = [line.rpartition("\r")[2].rstrip() for line in printed.splitlines()]
    return "".join(f"{line}\n" for line in lines if not NOTICES.search(line))


def fill_outputs(page: str, outputs: list[str]) -> str:
    """The page with the outputs in its text blocks. A step without a text block must print nothing."""
    parts, at = [], 0
    for step, output in zip(find_steps(page), outputs, strict=True):
        parts.append(page[at : step.start()])
        block = f"```bash\n{step['commands']}```\n"
        if step["output"] is not None:
            block += f"\n```text\n{output}```\n"
        elif output:
            raise SystemExit(f"{step['commands']} printed, but the page has no text block for it:\n{output}")
        parts.append(block)
        at = step.end()
    return "".join(parts) + page[at:]


def main(fresh: bool, keep: bool) -> None:
    page = PAGE.read_text(encoding="utf-8")
    blocks = [step["commands"] for step in find_steps(page)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = os.environ | {"DDCM_CACHE": f"{name}/cache"}
        if fresh:
            outputs = run([block.replace("URL", str(ROOT)) for block in blocks], folder, environment)
        else:
            link_project(folder)
            environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
            outputs = ["", *run(blocks[1:], folder, environment)]
    if not keep:
        PAGE.write_text(fill_outputs(page, outputs), encoding="utf-8")
        print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="also clone, create an environment and install")
    parser.add_argument("--keep", action="store_true", help="do not change the page")
    args = parser.parse_args()
    main(args.fresh, args.keep)
