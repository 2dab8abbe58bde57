"""docs/steps.md and docs/layers.svg agree with the code: files, functions, and who imports whom."""

import ast
import re
import runpy

import pytest

from tests.conftest import ROOT
from tests.test_layers import PACKAGE, entry, import_graph, level

PAGE = (ROOT / "docs" / "steps.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
ROW = re.compile(r"^\| `([\w/]+\.py)` \| (.*?) \|", re.MULTILINE)


def defined_names(file: str) -> set[str]:
    """Functions and classes of a file, and the methods of its classes as ``Class.method``."""
    names = set()
    for node in ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{method.name}" for method in node.body if isinstance(method, ast.FunctionDef)}
    return names


def imported_files(graph: dict[str, set[str]], file: str) -> set[str]:
    """Files that a file imports; for a package also those that its ``__init__.py`` imports from the package."""
    files = set(graph[file])
    for package in [name for name in files if name.endswith("/__init__.py")]:
        files |= {name for name in graph[package] if entry(name) == entry(package)}
    return files


def test_the_three_calls_are_there():
    assert list(SECTIONS) == ["transform", "fit", "compress"]


@pytest.mark.parametrize("section", SECTIONS)
def test_steps_go_down(section):
    graph, rows = import_graph(PACKAGE), ROW.findall(SECTIONS[section])
    files = [file for file, _ in rows]
    assert len(files) > 10 and len(files) == len(set(files)), "a file comes twice"
    for number, (file, functions) in enumerate(rows):
        missing = set(re.findall(r"`([\w.]+)`", functions)) - defined_names(file)
        assert not missing, f"{file} has no {missing}"
        callers = [above for above in files[:number] if file in imported_files(graph, above)]
        assert callers or number == 0, f"{file} is imported by none of the files above it"
        assert all(level(entry(caller)) >= level(entry(file)) for caller in callers), f"{file} is above its caller"


def test_files_in_the_text_exist():
    assert all((PACKAGE / file).is_file() for file in re.findall(r"`([\w/]+\.py)`", PAGE) if not file.startswith("t"))


def test_the_picture_of_the_layers_is_current():
    draw = runpy.run_path(str(ROOT / "scripts" / "layers.py"))["draw"]
    assert (ROOT / "docs" / "layers.svg").read_text(encoding="utf-8") == draw(), "run: python scripts/layers.py"
