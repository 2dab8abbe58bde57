"""The tests that need a GPU, and a fit by two processes, in processes of their own."""

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.gpu.record import Record
from ddcm.quantize import HardQuantizer
from ddcm.quantize.base import to_cells

TESTS, RANKS = "tests", "ranks"
ATOMS, SAMPLES, STEPS = 256, 16, 10


def run_tests(record: Record) -> None:
    if find_spec("pytest") is None or find_spec("hypothesis") is None:
        record.note(TESTS, "skipped: pytest or hypothesis is not installed")
        return
    record.measure(TESTS, _run_pytest, marked="gpu")


def _run_pytest() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        marked = [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "--override-ini=addopts=-q --import-mode=importlib",  # one process: there is one GPU
            *marked,
            "-m",
            "gpu and not slow",
            "--tb=short",
            f"--junitxml={report}",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        print(done.stdout[-6000:], done.stderr[-2000:], flush=True)
        suite = next(xml.etree.ElementTree.parse(report).iter("testsuite"))
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    return counts | {"failed": failed, "s": float(suite.get("time", 0))}


def run_ranks(record: Record, device: str) -> None:
    """A fit by two processes, against one process with the same batches: NCCL with two cards, gloo on a CPU."""
    if device != "cpu" and torch.cuda.device_count() < 2:
        record.note(RANKS, f"skipped: {torch.cuda.device_count()} card, two are needed")
        return
    record.measure(RANKS, lambda: _compare_ranks(device), backend=_backend(device))


def _backend(device: str) -> str:
    return "gloo" if device == "cpu" else "nccl"


def _compare_ranks(device: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_fit, (2, device, folder), nprocs=2)
        atoms = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(2)]
    alone, ms = fit_atoms(0, 1, device)
    return {
        "same_on_ranks": torch.equal(atoms[0]["atoms"], atoms[1]["atoms"]),
        "difference_to_one_process": float((atoms[0]["atoms"] - alone).abs().max()),
        "ms": atoms[0]["ms"], "ms_one_process": ms,
    }  # fmt: skip


def _fit(rank: int, world: int, device: str, folder: str) -> None:
    place = device if device == "cpu" else f"cuda:{rank}"
    if place != "cpu":
        torch.cuda.set_device(place)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        _backend(device), init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world
    )
    atoms, ms = fit_atoms(rank, world, place)
    torch.save({"atoms": atoms, "ms": ms}, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def fit_atoms(rank: int, world: int, device: str) -> tuple[torch.Tensor, float]:
    """Atoms (K, D) on the CPU after a few EMA steps on this rank's share of the batches, and ms a step."""
    batches = torch.randn(STEPS, SAMPLES, 8, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)
    quantizer = HardQuantizer(ATOMS, learn="ema", threshold_usage_ratio=0.0).to(device).train()
    quantizer.initialise(to_cells(batches[0], 8))
    begin = time.perf_counter()
    for batch in batches:
        quantizer(batch[rank::world])
    atoms = quantizer.codebook.detach().cpu()  # waits for the device
    return atoms, 1000 * (time.perf_counter() - begin) / STEPS
