"""A running page on the tiny backbone, for tests through the API and in the browser."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ddcm.app.server import run_server
from ddcm.app.server_options import Limits, ServerOptions
from ddcm.pipeline import DDCMPipeline
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import Codebook
from ddcm.runtime.files import list_files

PASSWORD = "a word"


@dataclass
class Served:
    address: str
    root: Path
    """Folder of the server's files."""
    pipe: DDCMPipeline

    def files(self) -> set[Path]:
        return set(list_files(self.root))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(backbone, limits: Limits) -> Iterator[Served]:
    quantizer = HardQuantizer(codebook_size=32).eval().requires_grad_(False)
    pipe = DDCMPipeline(backbone, Codebook(quantizer, backbone.name, backbone.latent_digest, {}))
    with run_server(pipe, ServerOptions(port=free_port(), password=PASSWORD), limits) as address:
        yield Served(address, Path(os.environ["GRADIO_TEMP_DIR"]), pipe)


def tone(path: Path, seconds: float, hertz: float = 440.0) -> Path:
    from ddcm.audio.files import write_audio

    write_audio(path, 0.5 * torch.sin(torch.arange(int(16000 * seconds)) * (hertz * 2 * torch.pi / 16000)), 16000)
    return path
