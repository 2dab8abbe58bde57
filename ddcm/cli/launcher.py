"""One command as several processes: ``--devices N --num_nodes M``.

``torch.distributed.launcher.elastic_launch``, which is what torchrun runs, starts the processes of this node and
restarts them if one dies. Each process runs the same command with a rank in its environment; so a process that torchrun
or srun started needs nothing from here. Ranks share a folder's files (``ddcm.cli.batch``) and never communicate.
"""

import logging
import multiprocessing
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from jsonargparse import Namespace

from ddcm.cli.outputs import describe_folder
from ddcm.cli.run_log import read_rows
from ddcm.errors import UserError
from ddcm.runtime.exit import INTERRUPTED, TERMINATED, Terminated
from ddcm.runtime.files import list_files
from ddcm.runtime.progress import progress_bar
from ddcm.runtime.ranks import read_launched_rank, read_local_rank
from ddcm.runtime.threads import check_processes

log = logging.getLogger(__name__)
RESTARTS = 3
GRACE_S = 10  # to leave after Ctrl-C
Main = Callable[[list[str]], int]
FINISHED = "DDCM_FINISHED"  # environment variable of the processes of one command: path of the list of finished files


def run_as_processes(main: Main, arguments: Namespace, argv: Sequence[str]) -> int | None:
    """Run ``main(argv)`` in the processes that ``--devices`` asks for; the highest exit code, or None if this process
    is one of the ranks itself. If a process dies, all of them restart, three times at most, and continue with what is
    unfinished. All of them end if this process ends, whatever ends it. Raises UserError: as ``processes_to_start``,
    or more processes than cores where there is no GPU."""
    ranks = processes_to_start(arguments.devices, arguments.num_nodes) if "devices" in arguments else []
    if not ranks:
        return None
    with progress_bar(leave=False):
        import torch
        from torch.distributed.elastic.multiprocessing import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if arguments.device not in (None, "cuda") or not torch.cuda.is_available():
        check_processes("--devices", len(ranks))
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=len(ranks), max_restarts=RESTARTS, run_id=secrets.token_hex(4),
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost",
    )  # fmt: skip
    world, since, death = arguments.devices * arguments.num_nodes, time.time(), None
    logging.disable(logging.CRITICAL)  # torch reports a death in twenty lines
    try:
        with tempfile.TemporaryDirectory(prefix="ddcm-") as folder:
            codes = elastic_launch(config, _work)(main, list(argv), ranks[0], world, arguments.out, folder)
        code = max(codes.values())
    except SignalException as error:
        raise (Terminated if error.sigval == signal.SIGTERM else KeyboardInterrupt) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code, death = 1, f"process {ranks[0] + rank} of {world} was ended by {failure.signal_name()}"
    finally:
        logging.disable(logging.NOTSET)
    if death:
        log.error("ddcm: %s after %d restarts; the same command continues", death, RESTARTS)
    rows = read_rows(Path(arguments.out), since)
    if failed := sum(row["status"] != "written" for row in rows):
        log.error("%d of %d files failed, %d written", failed, len(rows), len(rows) - failed)
    files = [(row["seconds"], row["notes"].get("bytes", 0)) for row in rows if row["status"] == "written"]
    print(describe_folder(Path(arguments.out), files))
    return code


def is_first_process() -> bool:
    """Whether this process logs what all of them would log: the first of those that one command started."""
    return not is_child() or read_local_rank()[0] == 0


def is_child() -> bool:
    """Whether ``run_as_processes`` started this process."""
    return FINISHED in os.environ


def finished_before() -> set[str] | None:
    """In a child, the files of OUT from before this node's processes started; else None."""
    return set(os.fsdecode(Path(os.environ[FINISHED]).read_bytes()).split("\0")) if is_child() else None


def processes_to_start(devices: int, num_nodes: int) -> list[int]:
    """Ranks that this process must start. None if it is one of the ranks itself. torchrun, or srun with a task for each
    device, starts devices x num_nodes processes: each is a rank. With a task for each node, or by hand with NODE_RANK
    set, each node has one process, which starts a rank for each device. Raises UserError: the launcher's number of
    processes is neither of the two."""
    if devices < 1 or num_nodes < 1:
        raise UserError(f"--devices {devices} --num_nodes {num_nodes}: both are at least 1")
    rank, world = read_launched_rank()
    if world == devices * num_nodes or (devices, num_nodes) == (1, 1):
        return []
    if world not in (1, num_nodes):
        wanted = f"--devices {devices} --num_nodes {num_nodes} are {devices * num_nodes} processes"
        raise UserError(f"{wanted}, but {world} were launched; launch as many, or one on each node")
    node = rank if world == num_nodes else int(os.environ.get("NODE_RANK", -1))
    if num_nodes > 1 and not 0 <= node < num_nodes:
        raise UserError(f"--num_nodes {num_nodes}: set NODE_RANK to 0 ... {num_nodes - 1} on the nodes, or use srun")
    first = node * devices if num_nodes > 1 else 0
    return list(range(first, first + devices))


def _work(main: Main, argv: list[str], first: int, world: int, out: str, folder: str) -> int:
    """The entry point of one process; its exit code. Only a process that dies without one is restarted."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, _interrupt)
    listing = Path(folder) / os.environ["TORCHELASTIC_RESTART_COUNT"]
    _list_files(out, listing)
    rank = first + int(os.environ["LOCAL_RANK"])
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), FINISHED: str(listing)}
    try:
        code = main(argv)
    except Exception:
        traceback.print_exc()
        return 1
    if code in (INTERRUPTED, TERMINATED):
        sys.exit(code)  # a process that returns waits for the others
    return code


def _interrupt(number: int, frame: object) -> None:
    """Raise KeyboardInterrupt, and end this process if that is ignored: Python does so in callbacks, as of imports."""
    timer = threading.Timer(GRACE_S, os._exit, [INTERRUPTED])
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _exit_with_parent() -> None:
    """End this process when its parent is gone, even by SIGKILL: files are whole or absent at any moment."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _list_files(out: str, listing: Path) -> None:
    """Write the names of the files under ``out`` to ``listing``, unless another process has. All processes then read
    the same list and compute the same share, though the first may already write files."""
    if not listing.exists():
        temporary = listing.with_name(f"{listing.name}.{os.getpid()}")
        temporary.write_bytes(os.fsencode("\0".join(map(str, list_files(Path(out), links=True)))))
        with suppress(FileExistsError):
            os.link(temporary, listing)
