"""Fitting against vector-quantize-pytorch: the same latents, batches, start and number of steps, in one run.

    pip install -e '.[train,bench]'
    python -m benchmarks.fit --root POOL/manifest.csv

Every contender gets the same batches (64 windows of 64 frames: 65536 cells of 8 numbers), starts with its own k-means
on the first one, and fits 1024 atoms. Theirs uses k-means, EMA and revival, with its default decay and with ours.
Steps alternate between contenders, so a busy machine slows all of them; ``step`` is the median. The validation error
is the mean squared error per number on the validation files. Memory is the growth of the peak in one step, in a
process of its own. The large step is measured for ours alone: theirs holds several 65536 x 1024 matrices and grows
with the cells.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from ddcm.fit.data.latent_data import LatentData
from ddcm.fit.metrics import CodebookMetrics
from ddcm.quantize import HardQuantizer, Quantized
from ddcm.quantize.base import to_cells

ATOMS = 1024


class Theirs(nn.Module):
    """vector-quantize-pytorch behind our contract, as far as ``CodebookMetrics`` needs it."""

    num_quantizers, codebook_size, embedding_dim = 1, ATOMS, 8

    def __init__(self, decay: float):
        from vector_quantize_pytorch import VectorQuantize

        super().__init__()
        self.vq = VectorQuantize(
            dim=8, codebook_size=ATOMS, decay=decay, commitment_weight=0.25, kmeans_init=True, kmeans_iters=20,
            threshold_ema_dead_code=2,
        )  # fmt: skip

    def forward(self, z: torch.Tensor) -> Quantized:
        out, codes, loss = self.vq(z.movedim(1, -1).flatten(1, -2))
        out = out.reshape(z.shape[0], *z.shape[2:], 8).movedim(-1, 1)
        return Quantized(out, codes.reshape(z.shape[0], *z.shape[2:]), out, {"commitment": loss.sum()})


CONTENDERS = {
    "ddcm, gradient": lambda: HardQuantizer(ATOMS),
    "ddcm, EMA": lambda: HardQuantizer(ATOMS, learn="ema"),
    "theirs, decay 0.8": lambda: Theirs(0.8),
    "theirs, decay 0.99": lambda: Theirs(0.99),
}


class Run:
    """One contender and its optimizer; ``step`` is a whole training step."""

    def __init__(self, quantizer: nn.Module, steps: int):
        self.quantizer = quantizer.train()
        parameters = [p for p in quantizer.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr=0.01) if parameters else None
        if self.optimizer:
            self.falling = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: max(0.0, 1 - step / steps))
        self.seconds: list[float] = []

    def start(self, z: torch.Tensor) -> None:
        if isinstance(self.quantizer, HardQuantizer):
            self.quantizer.initialise(to_cells(z, 8))
        else:
            self.quantizer(z)  # its first call

    def step(self, z: torch.Tensor) -> None:
        begin = time.perf_counter()
        losses = self.quantizer(z).losses
        if self.optimizer:
            self.optimizer.zero_grad()
            sum(losses.values()).backward()
            self.optimizer.step()
            self.falling.step()
        if z.is_cuda:
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - begin)

    @torch.no_grad()
    def figures(self, batches) -> dict[str, float]:
        self.quantizer.eval()
        metrics = CodebookMetrics(self.quantizer, cells_per_s=400)
        for batch in batches:
            metrics.update(batch["z"], self.quantizer(batch["z"]))
        return metrics.compute()


def peak_mib() -> float:
    """Peak of this program alone; getrusage would include the parent process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def memory_of(name: str, cells: int) -> float:
    """MiB that the peak of one step at ``cells`` cells adds to the process and its data."""
    z = torch.randn(cells // 1024, 8, 64, 16, generator=torch.Generator().manual_seed(0))
    run = Run(CONTENDERS[name](), steps=10)
    run.start(z[:4])
    run.step(z[:4])
    before = peak_mib()
    run.step(z)
    return peak_mib() - before


def measure_memory(name: str, cells: int) -> float:
    command = [sys.executable, __file__, "--memory_of", name, "--cells", str(cells)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(args: argparse.Namespace) -> None:
    data = LatentData(args.root, args.backbone, args.cache_dir, batch_size=64, seed=args.seed)
    data.setup("fit")
    runs = {name: Run(make(), args.steps) for name, make in CONTENDERS.items()}
    first = next(data.train_dataloader())["z"]
    for run in runs.values():
        torch.manual_seed(args.seed)  # theirs draws from the global generator
        run.start(first)
    stream = data.train_dataloader()
    for _ in tqdm(range(args.steps), desc="steps"):
        z = next(stream)["z"]
        for run in runs.values():
            run.step(z)
    print(f"\n{first.numel() // 8} cells a step, {args.steps} steps, {torch.get_num_threads()} threads\n")
    print("| | validation error | usage | perplexity | step (ms) | step's memory (MiB) |")
    print("|---|---|---|---|---|---|")
    medians = {}
    for name, run in runs.items():
        figures = run.figures(data.val_dataloader())
        medians[name] = statistics.median(run.seconds)
        print(
            f"| {name} | {figures['quantisation_error']:.6f} | {figures['usage']:.4f} | {figures['perplexity']:.0f} "
            f"| {1000 * medians[name]:.0f} | {measure_memory(name, first.numel() // 8):.0f} |"
        )
    slowest_of_ours = max(value for name, value in medians.items() if name.startswith("ddcm"))
    fastest_of_theirs = min(value for name, value in medians.items() if name.startswith("theirs"))
    print(f"\ntime of a step, theirs / ours (faster / slower one): {fastest_of_theirs / slowest_of_ours:.2f}")
    for name in (name for name in runs if name.startswith("ddcm")):
        print(f"a step of {args.cells:,} cells, {name}: {measure_memory(name, args.cells):.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="folder of audio or manifest, as --data.root of train.py")
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--cache_dir", help="of encoded latents")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=int, default=1 << 20, help="of the large step")
    parser.add_argument("--memory_of", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(memory_of(arguments.memory_of, arguments.cells))
    else:
        main(arguments)
