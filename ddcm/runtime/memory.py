"""Memory of this process: what a piece of work needs, and what the C library keeps of it; the machine's name."""

import ctypes
import math
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

SAMPLE_EVERY_S = 0.005
STATM = Path("/proc/self/statm")
MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # glibc's


@dataclass
class Cost:
    seconds: float = 0.0
    peak_mib: float = math.nan  # of the process's resident memory, or of the GPU's; NaN where unknown


@contextmanager
def measure_cost(device: torch.device) -> Iterator[Cost]:
    """Fill the ``Cost`` that it yields when the block ends. Resident memory is sampled every 5 ms."""
    result, done, samples, on_gpu = Cost(), threading.Event(), list[int](), device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)

    def watch() -> None:
        while STATM.exists():
            samples.append(int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
            if done.wait(SAMPLE_EVERY_S):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    try:
        yield result
    finally:
        if on_gpu:
            torch.cuda.synchronize(device)
        result.seconds = time.perf_counter() - start
        done.set()
        watcher.join()
        peak = torch.cuda.max_memory_allocated(device) if on_gpu else max(samples, default=math.nan)
        result.peak_mib = peak / 2**20


def trim_heap() -> None:
    """Return freed heap memory to the OS (``malloc_trim``). After a stage with many large arrays glibc keeps up to a
    gigabyte, and the next stage's memory comes on top of it. Does nothing with another C library."""
    if MALLOC_TRIM is not None:
        MALLOC_TRIM(0)


def describe_machine(device: str = "cpu") -> str:
    """Name of the GPU, or of the processor with the number of threads in use."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    return f"{cpu}, {torch.get_num_threads()} threads"
