"""What tests share: a backbone without weights to load, the shipped recordings, a cache of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    os.environ["DDCM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny():
    from ddcm.backbone.tiny import tiny_backbone

    return tiny_backbone()


@pytest.fixture(scope="session")
def speech():
    """Real audio: (S,) at 16 kHz."""
    from ddcm.audio import read_audio

    return read_audio(EXAMPLES / "speech.flac")
