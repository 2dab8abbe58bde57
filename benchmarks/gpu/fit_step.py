"""A training step of each contender of ``benchmarks.fit`` on latents of the shipped recordings: time and memory."""

import statistics
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.fit import CONTENDERS, Run
from benchmarks.gpu.record import Record
from benchmarks.gpu.verbs import synchronise
from benchmarks.systems import compute_mel
from ddcm.audio.files import read_audio
from ddcm.backbone import load

PART = "fit"
FRAMES = 64  # latent frames of a sample


@dataclass(frozen=True)
class Setup:
    device: str
    backbone: str = "checkpoints/pocket"
    samples: tuple[int, ...] = (64, 1024)
    """of 1024 cells each"""
    steps: int = 30


@torch.no_grad()
def read_latents(setup: Setup) -> torch.Tensor:
    """(n, 8, 64, 16): pieces of the recordings' latents, one every 0.32 s."""
    backbone = load(setup.backbone, device=setup.device)
    pieces = []
    for path in sorted(Path("examples").glob("*.flac")):
        z = backbone.encode(compute_mel(read_audio(path)[: 16000 * 10]).to(setup.device))
        if z.shape[2] >= FRAMES:
            pieces.append(z.unfold(2, FRAMES, 8)[0].permute(1, 0, 3, 2))
    return torch.cat(pieces)


def measure(record: Record, setup: Setup) -> None:
    pieces = read_latents(setup)
    for samples in setup.samples:
        for name in CONTENDERS:

            def work(name=name, samples=samples) -> dict:
                generator = torch.Generator().manual_seed(0)
                batches = [pieces[torch.randint(len(pieces), (samples,), generator=generator)] for _ in range(4)]
                return time_steps(name, batches, setup)

            record.measure(PART, work, contender=name, cells=samples * FRAMES * 16)


def time_steps(name: str, batches: list[torch.Tensor], setup: Setup) -> dict:
    torch.manual_seed(0)
    run = Run(CONTENDERS[name]().to(setup.device), steps=setup.steps)
    run.start(batches[0])
    run.step(batches[0])
    on_gpu = setup.device != "cpu"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    synchronise(setup.device)
    before, run.seconds = torch.cuda.memory_allocated() if on_gpu else 0, []
    for number in range(setup.steps):
        run.step(batches[number % len(batches)])
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20 if on_gpu else float("nan")
    return {"ms": 1000 * statistics.median(run.seconds), "peak_mib": peak}
