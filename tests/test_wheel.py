"""The package installed from its wheel works in an empty folder, without the checkout and without a network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tests.conftest import EXAMPLES, ROOT
from tests.test_readme import ELSEWHERE, VERBS, shorten

pytest.importorskip("setuptools", minversion="77")
SOURCES = (
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
    "LICENSES.md",
    "ddcm",
    "checkpoints",
    "configs",
    "examples",
)
NO_NETWORK = """
import socket

def refuse(self, address):
    raise AssertionError(f"connects to {address}")

socket.socket.connect = socket.socket.connect_ex = refuse
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder that holds the installed wheel, and ``bin/ddcm``. The dependencies are those of this environment."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "target"))
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source)
    (wheel,) = wheels.iterdir()
    pip("install", "--no-deps", "--no-index", "--target", target, wheel)
    (target / "sitecustomize.py").write_text(NO_NETWORK)
    return target


@pytest.fixture
def folder(tmp_path, installed) -> Path:
    """A working folder with one recording of half a second."""
    samples, rate = soundfile.read(EXAMPLES / "bird.flac", stop=8000)
    soundfile.write(tmp_path / "x.flac", samples, rate)
    return tmp_path


def pip(*words) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-q", *map(str, words)], check=True, capture_output=True)


def run(installed: Path, folder: Path, *words: str) -> str:
    """What ``words`` print in the folder, with the installed package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "DDCM_", "PYTHON"))}
    environment = kept | {
        "PYTHONPATH": str(installed),
        "DDCM_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "hf"),
    }
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_is_the_installed_one(installed, folder):
    code = "import ddcm, sitecustomize; print(ddcm.__file__, sitecustomize.__file__, sep='\\n')"
    printed = run(installed, folder, sys.executable, "-c", code).splitlines()
    assert all(Path(line).is_relative_to(installed) for line in printed), printed


def test_recipes(installed, folder):
    assert "refined: reconstruct (default)" in run(installed, folder, f"{installed}/bin/ddcm", "recipes")


def test_the_readmes_verbs(installed, folder):
    """From an empty folder: the examples are those of the package. In one process, and one verb on all of them."""
    commands = [shorten(line, folder) for line in VERBS if not any(name in line for name in ELSEWHERE)]
    everything = ["reconstruct", "examples", "-o", "out/all", "--recipe", "matched"]
    own = [["reconstruct", "x.flac", "-o", name, "--recipe", name[:-4]] for name in ("refined.wav", "quantised.wav")]
    compressed = [["compress", "examples/bird.flac", "-o", "out/a.ddcm", "--steps", "2"],
                  ["decompress", "out/a.ddcm", "-o", "out/a.wav"], ["inspect", "out/a.ddcm"]]  # fmt: skip
    code = f"""if True:
        from ddcm.cli.main import main
        for words in {[everything, *own, *compressed, *commands]}:
            assert main(words) == 0, words
    """
    printed = run(installed, folder, sys.executable, "-c", code)
    assert {path.stem for path in (folder / "out" / "all").glob("*.wav")} == {p.stem for p in EXAMPLES.glob("*.flac")}
    assert all(soundfile.info(folder / name).frames == 8000 for name in ("refined.wav", "quantised.wav"))
    assert "report.html" in printed and len({words[0] for words in commands}) >= 6


def test_python_without_arguments(installed, folder):
    """Reserved names are the package's, even where a folder is called so, and the hub is not asked."""
    (folder / "pocket").mkdir()
    code = """if True:
        from ddcm import DDCMPipeline
        pipe = DDCMPipeline.from_pretrained()
        assert pipe.codebook.quantizer.codebook_size == 1024
        out = pipe.generate("", 0.5, steps=2)
        assert len(out.audio) == 8000
        levels = {name: DDCMPipeline.from_pretrained("pocket", name).codebook.quantizer.num_quantizers
                  for name in ("pocket-1024", "pocket-residual")}
        assert levels == {"pocket-1024": 1, "pocket-residual": 8}
    """
    run(installed, folder, sys.executable, "-c", code)


def test_a_fit_finds_the_shipped_configuration(installed, folder):
    pytest.importorskip("lightning")
    options = ("--data.root=.", "--model.quantizer.codebook_size=16", "--trainer.max_steps=2", "--trainer.logger=false",
               "--trainer.val_check_interval=1", "--trainer.accelerator=cpu", "--data.batch_size=2",
               "--model.listen_every=0")  # fmt: skip
    run(installed, folder, f"{installed}/bin/ddcm", "fit", "-c", "fit.yaml", *options)
    assert (folder / "runs" / "fit" / "codebook" / "config.json").is_file()


def test_the_wheel_holds_no_tests_and_all_of_the_checkpoints(installed):
    folders = ("checkpoints", "configs", "examples")
    for name in (path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()):
        assert (installed / "ddcm" / "data" / name).read_bytes() == (ROOT / name).read_bytes()
    assert not {"tests", "pocket", "benchmarks", "docs", "scripts"} & {path.name for path in installed.iterdir()}
