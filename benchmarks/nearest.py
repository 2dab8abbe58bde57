"""Nearest atoms: time and memory of ours against ``torch.cdist`` and ``argmin``, in one run.

    python -m benchmarks.nearest

By default the cells are those of one hour of audio (1.44 million of 8 numbers), with 1024 atoms. Timings alternate, and
the median of each method counts, because machines are noisy. Memory is the growth of the peak of a process of its own.
On two EPYC cores: cdist / ddcm time 2.1, memory 39.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from ddcm.quantize.kmeans import find_nearest


def find_by_cdist(cells: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    return torch.cdist(cells, codebook).argmin(dim=1)


METHODS = {"ddcm": find_nearest, "cdist": find_by_cdist}


def inputs(cells: int, atoms: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(cells, 8, generator=generator), torch.randn(atoms, 8, generator=generator)


def peak_mib() -> float:
    """Peak of this program alone; getrusage would include the parent process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=1_440_000)
    parser.add_argument("--atoms", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory_of", choices=METHODS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    cells, codebook = inputs(args.cells, args.atoms)
    if args.memory_of:
        before = peak_mib()
        METHODS[args.memory_of](cells, codebook)
        print(peak_mib() - before)
        sys.exit()
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    for _ in range(args.repeats):
        for name, method in METHODS.items():
            start = time.perf_counter()
            method(cells, codebook)
            seconds[name].append(time.perf_counter() - start)
    size = ["--cells", str(args.cells), "--atoms", str(args.atoms)]
    memory = {
        name: float(subprocess.run([sys.executable, __file__, *size, "--memory_of", name],
                                   capture_output=True, text=True, check=True).stdout)
        for name in METHODS
    }  # fmt: skip
    for name in METHODS:
        print(f"{name:6} {statistics.median(seconds[name]):7.2f} s {memory[name]:9.0f} MiB")
    time_ratio = statistics.median(seconds["cdist"]) / statistics.median(seconds["ddcm"])
    print(f"cdist / ddcm: time {time_ratio:.2f}, memory {memory['cdist'] / max(memory['ddcm'], 1):.1f}")
