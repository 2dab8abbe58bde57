"""Fixtures: a backbone with random weights, the shipped recordings, a separate cache."""

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Small networks gain nothing from several threads, and threads that wait by spinning slow other processes down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

settings.register_profile("no clock", deadline=None)  # a busy machine is not a failure
settings.load_profile("no clock")

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def sounds(folder: Path) -> list[Path]:
    """Audio files in an output folder, without its manifest."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".wav", ".flac"))


class Killed(BaseException):
    """Stands in for SIGKILL: no handler catches it."""


def made(folder: Path) -> set[str]:
    """Names in an output folder without its manifest; none if the folder does not exist."""
    return {path.name for path in folder.iterdir()} - {".run", "manifest.csv"} if folder.exists() else set()


def reconstruct_fails(monkeypatch, number: int, error: BaseException) -> None:
    """Make reconstruction number ``number`` from now on raise the error; the others work."""
    from ddcm.pipeline import DDCMPipeline

    real, calls = DDCMPipeline.reconstruct, []

    def counted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            raise error
        return real(self, *args, **kwargs)

    monkeypatch.setattr(DDCMPipeline, "reconstruct", counted)


def pytest_collection_finish() -> None:
    """What the imports made stays; the collector need not look at it each time that a network is loaded."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    os.environ["DDCM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    """A test gets the same random numbers and threads alone and in the suite, so that a failure repeats."""
    import torch

    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny():
    from ddcm.backbone.tiny import tiny_backbone

    return tiny_backbone()


@pytest.fixture(scope="session")
def speech():
    """Real audio: (S,) at 16 kHz."""
    from ddcm.audio.files import read_audio

    return read_audio(EXAMPLES / "speech.flac")


@pytest.fixture(scope="session")
def neural_codecs(tmp_path_factory) -> Path:
    """A folder with an EnCodec and a DAC of random weights, which have 16 atoms."""
    from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel

    folder = tmp_path_factory.mktemp("codecs")
    small = dict(num_filters=4, hidden_size=16, codebook_size=16, num_lstm_layers=1, target_bandwidths=[0.6, 1.2])
    EncodecModel(EncodecConfig(**small)).save_pretrained(folder / "encodec")
    small = dict(encoder_hidden_size=4, decoder_hidden_size=32, n_codebooks=3, codebook_size=16, codebook_dim=4)
    DacModel(DacConfig(**small, downsampling_ratios=[4, 4, 5, 8])).save_pretrained(folder / "dac")
    return folder


@pytest.fixture
def attempts(tmp_path, monkeypatch) -> list[str]:
    """What is imported of ``evilmod``, asked of the hub, or sought in the network."""
    seen: list[str] = []
    folder = tmp_path / "importable"
    folder.mkdir()
    (folder / "evilmod.py").write_text("import builtins\nbuiltins.ddcm_evil.append('imported')\nrun = print\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr("builtins.ddcm_evil", seen, raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: seen.append(name))
    monkeypatch.setattr("socket.getaddrinfo", lambda *name, **_: seen.append(str(name)))
    yield seen
    sys.modules.pop("evilmod", None)
