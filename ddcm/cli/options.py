"""How a command is computed: number types, compilation, threads, and several processes over a folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddcm.cli import launcher, run_log
from ddcm.errors import UserError
from ddcm.recipes import DTYPES
from ddcm.runtime.ranks import read_local_rank


def compute_options(parser: Any) -> None:
    parser.add_argument("--device", type=str, help="default: cuda where there is one, else cpu")
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="of the UNet")
    parser.add_argument("--vae_dtype", default="float32", choices=DTYPES, help="of the VAE and the vocoder")
    parser.add_argument("--compile", action="store_true", help="the UNet by torch.compile: slow once, then faster")
    parser.add_argument("--threads", type=int, help="of the CPU, for each process; default: torch's own choice")


def devices_options(parser: Any) -> None:
    parser.add_argument("--devices", type=int, default=1, help="processes on a node that share the files out")
    parser.add_argument("--num_nodes", type=int, default=1, help="nodes that run this same command")


def device_of(asked: str | None) -> str:
    """The device of this process: under a launcher, each process has a GPU of its own.

    Raises:
        UserError: there are fewer GPUs than processes.
    """
    import torch

    if asked not in (None, "cuda") or not torch.cuda.is_available():
        return asked or "cpu"
    local, of = read_local_rank()
    if of > torch.cuda.device_count():
        raise UserError(f"{of} processes on this node, but {torch.cuda.device_count()} GPUs: give a smaller --devices")
    return f"cuda:{local}"


def set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        if threads < 1:
            raise UserError(f"--threads {threads} is below 1")
        torch.set_num_threads(threads)


def as_processes(main: launcher.Main, arguments: Any, argv: Sequence[str] | None) -> int | None:
    """Run ``main`` in the processes that ``--devices`` asks for; the exit code, or None if this process is one."""
    if "devices" not in arguments:
        return None
    devices, num_nodes = arguments.devices, arguments.num_nodes
    ranks = launcher.processes_to_start(devices, num_nodes)
    if not ranks:
        return None
    since, world = time.time(), devices * num_nodes
    command = list(sys.argv[1:] if argv is None else argv)
    code = launcher.run(main, command, ranks, world, arguments.out)
    done = run_log.rows(Path(arguments.out), since)
    failed = sum(row["status"] != "written" for row in done)
    if failed:
        print(f"{failed} of {len(done)} files failed, {len(done) - failed} written", file=sys.stderr)
    return code


def speaks() -> bool:
    """Whether this process says what all processes would: of those that one command started, the first does."""
    return not launcher.is_child() or read_local_rank()[0] == 0
