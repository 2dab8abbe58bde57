"""The house: who may import whom. Arrows go down the list, and some borders are closed altogether."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "ddcm"
LAYERS = [
    {"errors", "output", "page"},
    {"launch"},
    {
        "ending",
        "files",
        "mel",
        "noise",
        "schedule",
        "unipc",
        "limit",
        "dist",
        "recipes",
        "windows",
        "peak",
        "heap",
        "bits",
        "philox",
    },
    {"audio", "sample", "refine", "container", "record"},
    {"recording"},
    {"metrics", "listeners", "backbone", "quantize", "features", "post", "picture"},
    {"vocode", "diffuse", "evaluate", "heads"},
    {"codec"},
    {"pipeline", "fit", "inspect", "report"},
    {"batch", "compare", "cli_devices", "stream"},
    {"door", "cli_codec", "app"},
    {"cli_serve"},
    {"cli"},
]
CLOSED = {  # library -> the only places that may import it
    "diffusers": {"backbone/audioldm2.py", "backbone/text.py"},
    "transformers": {"backbone/audioldm2.py", "backbone/text.py"},
    "lightning": {"fit"},
    "matplotlib": {"fit", "picture.py"},
    "pesq": {"listeners.py"},
    "pystoi": {"listeners.py"},
    "visqol": {"listeners.py"},
    "soundfile": {"audio.py"},
    "webdataset": {"fit/packed.py", "fit/pack.py"},
    "argparse": set(),
    "jsonargparse": {"cli.py", "fit"},
    "constriction": {"codec/vq.py"},
    "gradio": {"app"},
    "starlette": {"app"},
}
NEVER = {  # ours -> ours that it must not know, even further down
    "quantize": {"backbone"},
    "sample": {"backbone"},
    "metrics": {"backbone", "pipeline"},
    "listeners": {"backbone", "pipeline"},
    "evaluate": {"backbone", "pipeline"},
    "report": {"backbone", "pipeline"},
    "recipes": {"torch"},
    "launch": {"torch"},
    "record": {"torch"},
    "page": {"torch"},
    "app": {"backbone", "quantize", "codec", "fit"},
    "bits": {"torch", "numpy"},
    "container": {"torch", "numpy"},
    "philox": {"torch"},
}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def imports(path) -> set[str]:
    """Full names of everything that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def part(name: str) -> str | None:
    """ddcm.backbone.tiny -> backbone"""
    pieces = name.split(".")
    return pieces[1] if pieces[0] == "ddcm" and len(pieces) > 1 else None


def level(name: str) -> int | None:
    return next((i for i, layer in enumerate(LAYERS) if name in layer), None)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_layering(path):
    where = path.relative_to(PACKAGE)
    own = where.parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert level(own) is not None, f"{where}: give it a place in LAYERS"
    names = imports(path)
    for name in names:
        other = part(name)
        if other is not None and other != own and level(other) is not None:
            assert level(other) < level(own), f"{where} imports {name}, which is not below it"
        root = name.split(".")[0]
        if root in CLOSED:
            assert str(where) in CLOSED[root] or own in CLOSED[root], f"{where} must not import {root}"
    for name in NEVER.get(own, ()):
        assert name not in {part(n) or n.split(".")[0] for n in names}, f"{where} must not know {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_global_seeds_and_no_unpickling(path):
    source = path.read_text()
    for call in ("torch.manual_seed(", "np.random.seed(", "seed_everything(", "pickle.load"):
        assert call not in source, f"{path}: {call}"
    if "torch.load(" in source:
        assert source.count("torch.load(") == source.count("weights_only=True"), f"{path}: torch.load unpickles"


def test_the_layer_test_sees_imports(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("def f():\n    from ddcm.backbone import load\n    import diffusers.models\n")
    assert imports(file) == {"ddcm.backbone", "ddcm.backbone.load", "diffusers.models"}


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "statement, absent",
    [
        ("import ddcm, ddcm.recipes, ddcm.cli.main", {"torch", "numpy", "librosa", "transformers"}),
        ("import ddcm.codec.format, ddcm.codec.layout, ddcm.cli.info", {"torch", "numpy"}),
        ("import ddcm.pipeline", {"constriction", "diffusers", "transformers", "lightning", "librosa", "matplotlib"}),
        ("import ddcm.app.server", {"gradio", "diffusers", "transformers", "lightning", "matplotlib"}),
        (
            "import ddcm.cli.report, ddcm.evaluation.compare",
            {"diffusers", "transformers", "lightning", "matplotlib", "pesq", "pystoi"},
        ),
    ],
)
def test_light_imports(statement, absent):
    assert not loaded_after(statement) & absent


def test_files_are_small():
    others = (path for folder in ("pocket", "tests", "fuzz") for path in (ROOT / folder).glob("*.py"))
    for path in [*modules(), *others]:
        assert len(path.read_text().splitlines()) <= 300, path
