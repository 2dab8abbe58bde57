"""Workflow, image, hooks, citation and lock agree with the project; ruff and mypy pass."""

import subprocess
import sys
import tomllib

import pytest
import yaml

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_workflow_runs_the_readmes_test_command():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step.get("run", "") for step in workflow["jobs"]["test"]["steps"]]
    assert any(f"\n{step}\n" in (ROOT / "README.md").read_text() and step.endswith("pytest") for step in steps if step)
    assert any("ruff format --check" in step for step in steps) and any(step.endswith("mypy") for step in steps)


def test_the_image_copies_existing_files():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    allowed = (ROOT / ".dockerignore").read_text().split()
    assert copied and all((ROOT / name).exists() and f"!{name}" in allowed for name in copied)
    assert {"ddcm", "setup.py", "checkpoints", "requirements.lock"} <= set(copied)
    install = next(line for line in lines if "pip install" in line)
    assert "-c requirements.lock" in install and all(
        name in PROJECT["project"]["optional-dependencies"] for name in install.split("[")[1].split("]")[0].split(",")
    )


def test_hooks_are_the_linters_commands():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        python, *words = hook["entry"].split()
        assert python == ".venv/bin/python" and words[:2] == ["-m", "ruff"]
        subprocess.run([sys.executable, *[word for word in words if word != "--fix"], "--help"], check=True,
                       capture_output=True)  # fmt: skip


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["project"]["version"] and citation["license"] == PROJECT["project"]["license"]
    assert f"\n## {citation['version']}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_lock_has_every_dependency():
    locked = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "requirements.lock").read_text().split("\n")
    }
    extras = PROJECT["project"]["optional-dependencies"]
    for text in [*PROJECT["project"]["dependencies"], *(text for extra in extras.values() for text in extra)]:
        name = text.split(">")[0].split("[")[0].lower().replace("_", "-")
        assert name == "ddcm" or name in locked, text


def test_the_code_is_clean():
    for words in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *words, "."], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.slow
def test_the_types_hold():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
