"""Every verb at the full size against the stock pipeline: seconds, memory and the share of the card's matrix rate."""

import functools
import gc
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import systems
from benchmarks.gpu.record import Record
from ddcm.pipeline import DDCMPipeline

UNET, VERBS, COMPILED, RATES = "unet", "verbs", "compiled", "rates"
NEEDED = {"reconstruct": ("vae", "vocoder"), "compress": ("vae", "unet")}
"""parts whose weights a verb needs; other verbs need three"""
WARM_STEPS = 8  # of the run before the first one that counts
CALLS = 5  # of a matrix product or the UNet in one measurement
Timed = tuple[float, float]  # median seconds; peak MiB above what was allocated, NaN on a CPU


@dataclass(frozen=True)
class Setup:
    folder: Path
    """an AudioLDM2 of benchmarks.full_size; written if it is missing"""
    variant: str
    device: str
    batches: tuple[int, ...] = (1, 4, 16)
    dtypes: tuple[str, ...] = ("bfloat16", "float32", "float16")
    steps: int = 50
    codec_steps: int = 30
    window_s: float = 10.24
    tasks_of_many: tuple[str, ...] = systems.TASKS
    """verbs that are measured on more than one window"""
    matrix: int = 8192
    repeats: int = 3
    within_s: float = 3.0
    """no further repeat after so many seconds"""


def start_writing(setup: Setup) -> subprocess.Popen | None:
    """Write the folder in a process of its own, while other parts run."""
    if setup.folder.exists():
        return None
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.full_size", str(setup.folder)]
    return subprocess.Popen([*command, "--variant", setup.variant], stdout=subprocess.DEVNULL)


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def measure_work(work: Callable[[], object], setup: Setup) -> Timed:
    """The median of the repeats. The caller has done a warm-up."""
    on_gpu, seconds = setup.device != "cpu", []
    synchronise(setup.device)
    before = torch.cuda.memory_allocated() if on_gpu else 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    while not seconds or (len(seconds) < setup.repeats and sum(seconds) < setup.within_s):
        begin = time.perf_counter()
        work()
        synchronise(setup.device)
        seconds.append(time.perf_counter() - begin)
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20 if on_gpu else float("nan")
    return statistics.median(seconds), peak


def count_mib(module: torch.nn.Module) -> float:
    return sum(p.nbytes for p in module.parameters()) / 2**20


class Ours:
    def __init__(self, setup: Setup, dtype: str, streams: Path, compiled: bool = False):
        self.setup, self.dtype, self.streams = setup, dtype, streams
        self.pipe = DDCMPipeline.from_pretrained(
            setup.folder, device=setup.device, dtype=dtype, vae_dtype=dtype, compiled=compiled
        )
        for part in ("vae", "unet", "vocoder"):
            getattr(self.pipe.backbone, part)
        self.pipe.backbone.null_condition()

    def make_work(self, case: systems.Case, prompt: str = systems.PROMPTS[0]) -> Callable[[], object]:
        stream = self.streams / f"{self.dtype}-{case.batch}-{case.steps}.ddcm"
        work = systems.our_windows(replace(case, stream=str(stream)), self.pipe)
        if case.task == "decompress" and not stream.exists():
            systems.our_windows(replace(case, stream=str(stream), task="compress"), self.pipe)("")
        return lambda: work(prompt)

    def weights_mib(self, task: str) -> float:
        backbone: Any = self.pipe.backbone
        return sum(count_mib(getattr(backbone, part)) for part in NEEDED.get(task, ("vae", "unet", "vocoder")))


class Stock:
    def __init__(self, setup: Setup, dtype: str):
        self.pipe = systems.stock_pipeline(str(setup.folder), getattr(torch, dtype)).to(setup.device)

    def make_work(self, case: systems.Case, prompt: str = systems.PROMPTS[0]) -> Callable[[], object]:
        if case.task == "generate":
            work = systems.stock_generate(case, self.pipe)
        else:
            parts = {name: getattr(self.pipe, name) for name in ("vae", "unet", "vocoder")}
            work = systems.stock_loop(case, parts, self.pipe.scheduler)
        return lambda: work(prompt)

    def weights_mib(self, task: str) -> float:
        if task == "generate":  # the pipeline keeps all of them
            return sum(count_mib(part) for part in self.pipe.components.values() if isinstance(part, torch.nn.Module))
        return sum(count_mib(getattr(self.pipe, part)) for part in NEEDED.get(task, ("vae", "unet", "vocoder")))


def measure_rates(record: Record, setup: Setup) -> None:
    """The rate of a product of two square matrices in each dtype; float32 with and without TF32."""
    for dtype in (*setup.dtypes, "tf32"):

        def work(dtype=dtype) -> dict:
            a = torch.randn(setup.matrix, setup.matrix, device=setup.device)
            a = a.to(torch.float32 if dtype == "tf32" else getattr(torch, dtype))
            torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
            try:
                torch.mm(a, a)
                seconds, _ = measure_work(lambda: [torch.mm(a, a) for _ in range(CALLS)], setup)
            finally:
                torch.backends.cuda.matmul.allow_tf32 = False
            return {"tflops": CALLS * 2 * setup.matrix**3 / seconds / 1e12}

        record.measure(RATES, work, dtype=dtype)


def rate(record: Record, dtype: str) -> float:
    """TFLOP/s that a share refers to. In float32 cuDNN convolves in TF32, so that rate is the one to reach."""
    row = record.find(RATES, dtype="tf32" if dtype == "float32" and record.find(RATES, dtype="tf32") else dtype)
    return row["tflops"] if row else float("nan")


@torch.no_grad()
def call_unet(pipe: DDCMPipeline, batch: int, window_s: float) -> torch.Tensor:
    backbone = pipe.backbone
    x = torch.randn(batch, 8, round(25 * window_s), 16, device=backbone.device)
    return backbone.eps(x, 500, backbone.null_condition())


def measure_unet(record: Record, setup: Setup, ours: dict[str, Ours]) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for dtype, system in ours.items():
        for batch in setup.batches:

            def work(pipe=system.pipe, batch=batch, dtype=dtype) -> dict:
                with FlopCounterMode(display=False) as counter:
                    call_unet(pipe, batch, setup.window_s)
                tflop = counter.get_total_flops() / 1e12
                seconds, peak = measure_work(
                    lambda: [call_unet(pipe, batch, setup.window_s) for _ in range(CALLS)], setup
                )
                tflops = CALLS * tflop / seconds
                return dict(ms=1000 * seconds / CALLS, peak_mib=peak, tflops=tflops,
                            share=tflops / rate(record, dtype), tflop_a_window=tflop / batch)  # fmt: skip

            record.measure(UNET, work, dtype=dtype, batch=batch)


def list_cases(setup: Setup) -> list[systems.Case]:
    """In the order of their worth: one window in all dtypes, then several."""
    halves = [dtype for dtype in setup.dtypes if dtype != "float16"]
    order = [(batch, dtype) for batch in setup.batches for dtype in halves] + [(1, d) for d in setup.dtypes[2:]]
    cases = []
    for batch, dtype in order:
        for task in systems.TASKS if batch == 1 else setup.tasks_of_many:
            steps = setup.codec_steps if task in ("compress", "decompress") else setup.steps
            cases.append(systems.Case(str(setup.folder), task, batch, setup.window_s, steps, setup.device, dtype))
    return cases


def measure_case(record: Record, setup: Setup, part: str, name: str, system: Ours | Stock, case: systems.Case) -> None:
    def work() -> dict:
        warm = replace(case, steps=min(case.steps, WARM_STEPS))
        begin = time.perf_counter()
        system.make_work(warm)()
        synchronise(setup.device)
        first = time.perf_counter() - begin
        seconds, peak = measure_work(system.make_work(case), setup)
        row = dict(s=seconds, warm_up_s=first, peak_mib=system.weights_mib(case.task) + peak)
        unet = record.find(UNET, dtype=case.dtype, batch=1)
        if unet and case.task != "reconstruct":
            calls = case.batch * case.steps * (2 if case.task == "generate" else 1)
            row["share"] = calls * unet["tflop_a_window"] / seconds / rate(record, case.dtype)
        if case.task == "generate" and case.batch == 1:
            new = replace(setup, repeats=1)
            row["new_prompt_s"], above = measure_work(system.make_work(case, systems.PROMPTS[1]), new)
            row["new_prompt_peak_mib"] = system.weights_mib(case.task) + above
        return row

    record.measure(part, work, system=name, task=case.task, batch=case.batch, dtype=case.dtype, steps=case.steps)


def measure(record: Record, setup: Setup, writing: subprocess.Popen | None) -> None:
    if writing is not None and writing.wait() != 0:
        raise RuntimeError("benchmarks.full_size could not write the weights")
    measure_rates(record, setup)
    with tempfile.TemporaryDirectory() as streams:
        loaded: dict[tuple[str, str], Ours | Stock | None] = {}
        for dtype in setup.dtypes:
            loaded["ours", dtype] = _try(
                record, f"ours, {dtype}", lambda dtype=dtype: Ours(setup, dtype, Path(streams))
            )
        measure_unet(record, setup, {dtype: system for (_, dtype), system in loaded.items() if system is not None})
        for case in list_cases(setup):
            if ("stock", case.dtype) not in loaded:
                make = functools.partial(Stock, setup, case.dtype)
                loaded["stock", case.dtype] = _try(record, f"stock, {case.dtype}", make)
            for name in ("stock", "ours"):
                system = loaded[name, case.dtype]
                if system is not None:
                    measure_case(record, setup, VERBS, name, system, case)


def _try(record: Record, name: str, make: Callable[[], Any]) -> Any:
    """What ``make`` returns, or None and a note: the other systems are measured all the same."""
    try:
        return make()
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        record.note(VERBS, f"{name} could not be loaded: {type(error).__name__}: {error}"[:300])
        return None


def measure_compiled(record: Record, setup: Setup) -> None:
    """``--compile``: on a GPU a CUDA graph for each shape. The first call compiles and takes minutes."""
    dtype = setup.dtypes[0]
    gc.collect()  # the plain pipelines are still there otherwise
    with tempfile.TemporaryDirectory() as streams:
        system = Ours(setup, dtype, Path(streams), compiled=True)
        for case in list_cases(setup):
            if case.batch == 1 and case.dtype == dtype and case.task in ("decompress", "generate", "compress"):
                measure_case(record, setup, COMPILED, "ours, --compile", system, case)
