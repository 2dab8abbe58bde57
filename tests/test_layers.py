"""Which package may import which: arrows go down, through every file between, and never in a circle."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "ddcm"
LAYERS = [  # a package imports from the rows above its own; packages of one row do not know each other
    {"errors"},
    {"runtime", "recipes", "diffusion"},
    {"audio", "quantize"},
    {"backbone"},
    {"codec", "fit"},
    {"pipeline"},
    {"evaluation"},
    {"app"},
    {"cli"},
]
NEVER = {  # package or file -> packages and libraries that no chain of its imports may reach
    "codec": {"backbone"},
    "evaluation/signal_metrics.py": {"backbone", "pipeline"},
    "evaluation/perceptual.py": {"backbone", "pipeline"},
    "evaluation/evaluate_files.py": {"backbone", "pipeline"},
    "evaluation/html_report.py": {"backbone", "pipeline"},
    "recipes.py": {"torch", "numpy"},
    "runtime/ranks.py": {"torch"},
    "cli/run_log.py": {"torch"},
    "codec/bitstream.py": {"torch", "numpy"},
    "codec/format.py": {"torch", "numpy"},
    "codec/philox.py": {"torch"},
}
NOT_DIRECTLY = {"app": {"backbone", "quantize", "codec", "fit"}}  # the page reaches them through the pipeline
EXCEPTIONS = {  # (file, package) -> why it may import it although a table above forbids it; to be removed one by one
    ("app/service.py", "codec"): "shows the header of an uploaded .ddcm file",
    ("cli/main.py", "__init__"): "prints the version",
}
LIBRARIES = {  # library -> the only places that may import it
    "diffusers": {"backbone/audioldm2.py", "backbone/text.py"},
    "transformers": {"backbone/audioldm2.py", "backbone/text.py", "evaluation/neural_codecs.py"},
    "lightning": {"fit"},
    "matplotlib": {"fit/tensorboard.py", "evaluation/plots.py"},
    "pesq": {"evaluation/perceptual.py"},
    "pystoi": {"evaluation/perceptual.py"},
    "visqol": {"evaluation/perceptual.py"},
    "speechmos": {"evaluation/perceptual.py"},
    "resemblyzer": {"evaluation/perceptual.py"},
    "pocketsphinx": {"evaluation/perceptual.py"},
    "soundfile": {"audio/files.py", "audio/decode.py"},
    "webdataset": {"fit/data/streaming.py", "fit/data/pack.py"},
    "argparse": set(),
    "jsonargparse": {"cli", "fit"},
    "constriction": {"codec/codes/vq.py"},
    "gradio": {"app"},
    "starlette": {"app"},
}

Graph = dict[str, set[str]]
"""File, relative to the package -> files of the package and top-level names of libraries that it imports."""


def imports(path: Path) -> set[str]:
    """Full names of everything that a file imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def import_graph(package: Path) -> Graph:
    files = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    return {file: set(_targets(file, imports(package / file), files)) for file in sorted(files)}


def _targets(file: str, names: Iterable[str], files: set[str]) -> Iterator[str]:
    """What the names stand for. A module of another package brings the ``__init__.py`` files above it along."""
    for name in names:
        root, *parts = name.split(".")
        if root != "ddcm":
            yield root
            continue
        while parts and f"{'/'.join(parts)}.py" not in files and f"{'/'.join(parts)}/__init__.py" not in files:
            parts.pop()  # a name inside of a module
        if f"{'/'.join(parts)}.py" in files:
            yield f"{'/'.join(parts)}.py"
            parts.pop()
        else:  # a package, or the root itself
            yield "/".join([*parts, "__init__.py"])
        if parts and parts[0] != entry(file):
            yield from (f"{'/'.join(parts[:n])}/__init__.py" for n in range(1, len(parts) + 1))


def entry(name: str) -> str:
    """``codec/codes/vq.py`` -> ``codec``; a library is its own."""
    return name.split("/")[0].removesuffix(".py")


def without_exceptions(graph: Graph) -> Graph:
    return {file: {to for to in targets if (file, entry(to)) not in EXCEPTIONS} for file, targets in graph.items()}


def chains(graph: Graph, file: str) -> dict[str, list[str]]:
    """All that importing a file reaches -> the files between, first to last."""
    reached: dict[str, list[str]] = {}
    waiting = [[file]]
    while waiting:
        chain = waiting.pop(0)
        for to in sorted(graph.get(chain[-1], ())):
            if to not in reached:
                reached[to] = [*chain, to]
                waiting.append(reached[to])
    return reached


def level(name: str) -> int | None:
    return next((number for number, layer in enumerate(LAYERS) if name in layer), None)


def violations(graph: Graph) -> list[str]:
    """A line for each chain of imports that the tables forbid, for each circle, and for each misplaced library."""
    lines, allowed = [], without_exceptions(graph)
    for file in graph:
        own = entry(file)
        if own == "__init__":
            continue
        if level(own) is None:
            lines.append(f"{file}: give {own} a row in LAYERS")
            continue
        closed = NEVER.get(own, set()) | NEVER.get(file, set())
        for to, chain in chains(allowed, file).items():
            other = level(entry(to))
            up = other is not None and entry(to) != own and other >= level(own)
            if up or entry(to) in closed or to == "__init__.py":
                lines.append(" -> ".join(chain))
        for to in allowed[file]:
            if entry(to) in NOT_DIRECTLY.get(own, ()):
                lines.append(f"{file} -> {to}")
            if to in LIBRARIES and file not in LIBRARIES[to] and own not in LIBRARIES[to]:
                lines.append(f"{file} -> {to}, which is for {', '.join(sorted(LIBRARIES[to])) or 'nobody'}")
    try:
        TopologicalSorter({file: targets & set(graph) for file, targets in graph.items()}).prepare()
    except CycleError as error:
        lines.append("circle: " + " -> ".join(error.args[1]))
    return lines


def test_imports_go_down():
    assert violations(import_graph(PACKAGE)) == []


def test_few_rows_and_few_entries():
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    assert len(LAYERS) <= 12 and len(entries) <= 14
    assert set.union(*LAYERS) == {name.removesuffix(".py") for name in entries} - {"__init__"}


def test_every_exception_is_needed():
    graph = import_graph(PACKAGE)
    assert [pair for pair in EXCEPTIONS if pair[1] not in map(entry, graph.get(pair[0], ()))] == []


@pytest.mark.parametrize(
    "file, line",
    [
        ("audio/mel.py", "from ddcm.backbone import load"),
        ("audio/mel.py", "def f():\n    import ddcm.quantize.base"),
        ("codec/header.py", "from ddcm.fit.data import cache"),
        ("codec/header.py", "import numpy"),
        ("recipes.py", "from ddcm.runtime.memory import cost"),
        ("evaluation/evaluate_files.py", "from ddcm.evaluation.compare import compare"),
        ("pipeline/encode.py", "from ddcm.pipeline import DDCMPipeline"),
        ("diffusion/noise.py", "import diffusers"),
        ("app/page.py", "from ddcm.codec.compress import compress"),
        ("cli/evaluation.py", "from ddcm import DDCMPipeline"),
    ],
)
def test_a_planted_violation_is_seen(tmp_path, file, line):
    """A copy of the package with one import more."""
    for path in PACKAGE.rglob("*.py"):
        copy = tmp_path / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    assert violations(import_graph(tmp_path)) == []
    (tmp_path / file).write_text(f"{(PACKAGE / file).read_text()}\n{line}\n")
    assert violations(import_graph(tmp_path))


def test_a_chain_of_files_is_followed():
    graph = {
        "audio/a.py": {"diffusion/b.py"},
        "diffusion/b.py": {"runtime/c.py"},
        "runtime/c.py": {"torch"},
        "recipes.py": {"runtime/c.py"},
    }
    lines = violations(graph)
    assert "recipes.py -> runtime/c.py -> torch" in lines and "diffusion/b.py -> runtime/c.py" in lines
    assert not any(line.startswith("audio/a.py -> diffusion/b.py -> runtime/c.py -> torch") for line in lines)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_global_seeds_and_no_unpickling(path):
    source = path.read_text()
    for call in ("torch.manual_seed(", "np.random.seed(", "seed_everything(", "pickle.load"):
        assert call not in source, f"{path}: {call}"
    if "torch.load(" in source:
        assert source.count("torch.load(") == source.count("weights_only=True"), f"{path}: torch.load unpickles"


LIGHT = {"diffusers", "transformers", "lightning", "matplotlib"}
STATEMENTS = {  # one after the other -> libraries that are not loaded then
    "import ddcm, ddcm.recipes, ddcm.cli.main": {"torch", "numpy", "librosa", "transformers"},
    "import ddcm.codec.format, ddcm.codec.header, ddcm.cli.info": {"torch", "numpy"},
    "import ddcm.pipeline": LIGHT | {"constriction", "librosa"},
    "import ddcm.app.server": LIGHT | {"gradio"},
    "import ddcm.cli.evaluation, ddcm.evaluation.compare": LIGHT | {"pesq", "pystoi"},
}


@pytest.fixture(scope="module")
def loaded() -> list[set[str]]:
    """Top-level names of all loaded modules after each of ``STATEMENTS``, in one fresh process."""
    shown = "import sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    code = "\n".join(f"{statement}\n{shown}" for statement in STATEMENTS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return [set(line.split()) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("number, statement", enumerate(STATEMENTS))
def test_light_imports(loaded, number, statement):
    assert len(loaded) == len(STATEMENTS) and {"ddcm", "sys"} <= loaded[number]
    assert not loaded[number] & STATEMENTS[statement]


def test_files_are_small():
    others = (path for folder in ("pocket", "tests") for path in (ROOT / folder).rglob("*.py"))
    for path in [*PACKAGE.rglob("*.py"), *others]:
        assert len(path.read_text().splitlines()) <= 300, path
