"""One command as several processes: ``--devices N --num_nodes M``.

Every process is the same command with a rank in its environment, as torchrun sets it; so a process that torchrun or
srun started needs nothing from here. Ranks share a folder out (``ddcm.cli.batch``) and never talk to each other.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ddcm.errors import UserError
from ddcm.runtime.ranks import read_launched_rank

POLL_S = 0.5
CHILD, FINISHED = "DDCM_CHILD", "DDCM_FINISHED"
MODULE = "import sys; from ddcm.cli.main import main; sys.exit(main())"


def finished_before() -> set[str] | None:
    """Files that were there when the run began, where ``run`` started this process."""
    return set(Path(os.environ[FINISHED]).read_text().splitlines()) if FINISHED in os.environ else None


def processes_to_start(devices: int, num_nodes: int) -> list[int]:
    """Ranks that this process must start; none where it is itself one of them, or the only one.

    torchrun, or srun with a task for each device, starts devices x num_nodes processes: each is a rank. With a task
    for each node, or by hand with NODE_RANK set, one is started on each node, and starts its devices' ranks.

    Raises:
        UserError: the launcher's number of processes fits neither.
    """
    if devices < 1 or num_nodes < 1:
        raise UserError(f"--devices {devices} --num_nodes {num_nodes}: both are at least 1")
    rank, world = read_launched_rank()
    if world == devices * num_nodes or (devices, num_nodes) == (1, 1):
        return []
    if world not in (1, num_nodes):
        raise UserError(
            f"--devices {devices} --num_nodes {num_nodes} are {devices * num_nodes} processes, but {world} were "
            f"launched; launch as many, or one on each node"
        )
    node = rank if world == num_nodes else int(os.environ.get("NODE_RANK", -1))
    if num_nodes > 1 and not 0 <= node < num_nodes:
        raise UserError(f"--num_nodes {num_nodes}: set NODE_RANK to 0 ... {num_nodes - 1} on the nodes, or use srun")
    first = node * devices if num_nodes > 1 else 0
    return list(range(first, first + devices))


def run(argv: Sequence[str], ranks: list[int], world: int, out: str, progress: Callable[[], None]) -> int:
    """The command ``argv`` once for each rank; the highest of their exit codes.

    ``progress()`` is called twice a second while they run, and once after. A rank that dies does not stop the
    others. Ranks die with this process, however it ends.
    """
    with _told_what_is_there(out) as environment:
        children = [_start(argv, rank, world, local, len(ranks), environment) for local, rank in enumerate(ranks)]
        try:
            while any(child.poll() is None for child in children):
                progress()
                threading.Event().wait(POLL_S)
        except BaseException:
            for child in children:
                child.send_signal(signal.SIGINT)
            raise
        finally:
            for child in children:
                child.wait()
            progress()
    for rank, child in zip(ranks, children, strict=True):
        if child.returncode < 0:
            name = signal.Signals(-child.returncode).name
            print(f"ddcm: process {rank} of {world} was ended by {name}; the same command goes on", file=sys.stderr)
    return max(child.returncode if child.returncode >= 0 else 1 for child in children)


@contextmanager
def _told_what_is_there(out: str) -> Iterator[dict[str, str]]:
    """An environment that names the files of OUT that are finished: each rank must see the same work left, though
    they look at different times."""
    with tempfile.TemporaryDirectory(prefix="ddcm-") as folder:
        listing = Path(folder) / "finished"
        there = (str(Path(inside, name)) for inside, _, names in os.walk(out) for name in names)
        listing.write_text("\n".join(there))
        yield {**os.environ, FINISHED: str(listing)}


def _start(argv, rank: int, world: int, local: int, of: int, environment: dict[str, str]) -> subprocess.Popen:
    home = str(Path(__file__).parents[2])
    environment = environment | {
        "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(local), "LOCAL_WORLD_SIZE": str(of), CHILD: "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")])),
    }  # fmt: skip
    return subprocess.Popen([sys.executable, "-c", MODULE, *argv], env=environment, stdin=subprocess.PIPE)


def is_child() -> bool:
    """Whether this process is a rank that ``run`` started."""
    return CHILD in os.environ


def leave_with_parent() -> None:
    """In a rank that ``run`` started: end when the process that started it is gone, even by SIGKILL.

    Its end of the pipe closes then. Files are whole or absent at any moment, so ending at any moment is safe.
    """

    def wait() -> None:
        # Unbuffered: a thread that holds the buffer's lock would keep the interpreter from ending.
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
