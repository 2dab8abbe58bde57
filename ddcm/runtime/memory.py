"""Memory: how much a piece of work takes at most, and how freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import functools
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

EVERY_S = 0.005
STATM = Path("/proc/self/statm")


@dataclass
class Cost:
    seconds: float = 0.0
    peak_mib: float = float("nan")
    """Of the process's resident memory, or of the GPU's where the work was done there; NaN where neither is known."""


@contextmanager
def measure_cost(device: torch.device) -> Iterator[Cost]:
    """Fills the Cost that it yields when the block ends. Resident memory is looked at every 5 ms."""
    spent, done, seen = Cost(), threading.Event(), []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def watch() -> None:
        while not done.wait(EVERY_S):
            seen.append(_resident())

    watcher = threading.Thread(target=watch, daemon=True)
    if STATM.exists():
        seen.append(_resident())
        watcher.start()
    start = time.perf_counter()
    try:
        yield spent
    finally:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent.seconds = time.perf_counter() - start
        done.set()
        if watcher.is_alive():
            watcher.join()
        if device.type == "cuda":
            spent.peak_mib = torch.cuda.max_memory_allocated(device) / 2**20
        elif seen:
            spent.peak_mib = max(seen) / 2**20


def _resident() -> int:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def give_back() -> None:
    """To the system, now: after a stage with many large arrays glibc keeps up to a gigabyte of pieces, and the next
    stage's come on top of it. Elsewhere nothing happens: other C libraries keep less."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim():
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def machine(device: str = "cpu") -> str:
    """Processor or GPU, cores or threads in use: what a time is to be read with."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    return f"{cpu}, {torch.get_num_threads()} threads"
