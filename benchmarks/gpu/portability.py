"""``.ddcm`` files that were made on one device and are decoded on another, at every dtype of both."""

import functools
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks.gpu.record import Record
from ddcm.audio.files import read_audio
from ddcm.audio.mel import mel_error_db
from ddcm.errors import UserError
from ddcm.evaluation.signal_metrics import log_mel_mae_db
from ddcm.pipeline import DDCMPipeline
from ddcm.runtime.memory import describe_machine

PART = "portability"
DTYPES = ("float32", "bfloat16", "float16")
CLIPS = {"float32": ("bird", "speech", "drumloop"), "bfloat16": ("bird", "speech", "drumloop"), "float16": ("bird",)}
"""by the dtype of the encoder: a CPU without float16 takes half a minute for a clip"""
MODES = {"turbo": {"mode": "turbo", "kbps": 1.0}, "vq": {"mode": "vq"}}


@dataclass(frozen=True)
class Setup:
    files: Path
    """folder of files, which may have been made on another machine"""
    devices: dict[str, str]
    """``cpu`` and ``gpu`` -> a device of torch"""
    backbone: str = "checkpoints/pocket"
    codebook: str | None = "checkpoints/codebooks/pocket-1024"
    seconds: float = 5.0
    steps: int | None = None
    dtypes: tuple[str, ...] = DTYPES
    clips: int = 3

    def list_made(self) -> list[tuple[str, str, str]]:
        """(mode, dtype, clip) of each file that a device makes. vq has no UNet, so its dtype does not matter."""
        made = [("turbo", dtype, clip) for dtype in self.dtypes for clip in CLIPS[dtype][: self.clips]]
        return made + ([("vq", "float32", CLIPS["float32"][0])] if self.codebook else [])


class Bench:
    def __init__(self, setup: Setup):
        self.setup = setup

    @functools.cache  # noqa: B019  one bench a run
    def pipeline(self, place: str, dtype: str) -> DDCMPipeline:
        setup = self.setup
        return DDCMPipeline.from_pretrained(setup.backbone, setup.codebook, device=setup.devices[place], dtype=dtype)

    def read_clip(self, clip: str) -> torch.Tensor:
        return read_audio(Path("examples") / f"{clip}.flac")[: round(16000 * self.setup.seconds)]

    def make(self, place: str, mode: str, dtype: str, clip: str) -> Path:
        """A file, and beside it what its own device decodes from it; both are kept."""
        path = self.setup.files / f"{place}-{mode}-{dtype}-{clip}.ddcm"
        if not path.with_suffix(".safetensors").exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            steps = {} if mode == "vq" else {"steps": self.setup.steps}
            path.write_bytes(self.pipeline(place, dtype).compress(self.read_clip(clip), 16000, **MODES[mode], **steps))
            machine = {"machine": describe_machine(self.setup.devices[place])}
            save_file(self.decode(path, place, dtype), path.with_suffix(".safetensors"), machine)
        return path

    def decode(self, path: Path, place: str, dtype: str) -> dict[str, torch.Tensor]:
        out = self.pipeline(place, dtype).decompress(path.read_bytes(), vocoder="backbone")
        return {"latent": out.latent.contiguous(), "mel": out.mel.contiguous(), "audio": out.audio.contiguous()}

    def compare(self, path: Path, place: str, dtype: str, clip: str) -> dict:
        """What another device makes of a file, against its own device and against the recording."""
        home, audio = load_file(path.with_suffix(".safetensors")), self.read_clip(clip)
        try:
            away = self.decode(path, place, dtype)
        except UserError as error:
            return {"refused": str(error)}
        with safe_open(path.with_suffix(".safetensors"), "pt") as file:
            machine = file.metadata()["machine"]
        difference = (away["latent"] - home["latent"]).square().mean().sqrt() / home["latent"].square().mean().sqrt()
        return {
            "latent_rms": float(difference),
            "mel_db": mel_error_db(away["mel"], home["mel"]),
            "home_db": log_mel_mae_db(audio, home["audio"]),
            "away_db": log_mel_mae_db(audio, away["audio"]),
            "same_bits": torch.equal(away["latent"], home["latent"]),
            "made_by": machine,
        }


def prepare(setup: Setup) -> None:
    """Make the CPU's files ahead of a run on a machine with a GPU."""
    bench = Bench(setup)
    for made in setup.list_made():
        print(bench.make("cpu", *made), flush=True)


def measure(record: Record, setup: Setup) -> None:
    """A row for each file and each dtype of the other device, then of the device that made it."""
    bench = Bench(setup)
    for made, decoded in (("cpu", "gpu"), ("gpu", "cpu"), ("gpu", "gpu"), ("cpu", "cpu")):
        for (mode, dtype, clip), other in product(setup.list_made(), setup.dtypes):
            slow = decoded == "cpu" and clip not in CLIPS[other]
            if slow or (mode == "vq" and other != "float32") or (made == decoded and clip != CLIPS["float32"][0]):
                continue
            key = dict(mode=mode, clip=clip, made=made, made_dtype=dtype, decoded=decoded, decoded_dtype=other)

            def work(place=made, mode=mode, dtype=dtype, clip=clip, decoded=decoded, other=other) -> dict:
                return bench.compare(bench.make(place, mode, dtype, clip), decoded, other, clip)

            record.measure(PART, work, **key)
