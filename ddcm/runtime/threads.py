"""Threads of the CPU: how many there may be, and how they wait. No torch: OpenMP reads its variables as torch loads."""

import math
import os
import sys
from contextlib import suppress
from pathlib import Path

from ddcm.errors import UserError
from ddcm.runtime.ranks import read_local_rank

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}  # of every OpenMP; of LLVM's and Intel's alone
CHOICES = {*PASSIVE, "GOMP_SPINCOUNT"}
COUNTS = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}
SMALL_UNET = 16_000_000  # weights; with fewer, an operation is over before a sleeping thread is awake


def wait_passively() -> None:
    """Let threads that wait for work sleep. By default they spin: on a machine with other work each turn waits for a
    core that a spinning thread holds. Does nothing once torch is loaded, or where the user has set such a variable."""
    if "torch" not in sys.modules and not CHOICES & os.environ.keys():
        os.environ.update(PASSIVE)


def count_cores(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may use: those of its affinity, at most its cgroup's quota, shared by the processes of
    this node. Other load does not count: the number of threads decides the last bits of the samples, which must not
    depend on what else runs."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    granted = math.ceil(min([cores, *_list_quotas(cgroups, own)]))
    return max(1, granted // read_local_rank()[1])


def choose_threads(threads: int | None, unet_weights: int = 0) -> int | None:
    """``--threads``, or a thread for each core; None, torch's own choice, where the user has set a variable. A small
    UNet gets one thread, which is faster: see docs/speed.md. 0: no UNet, or unknown."""
    if threads is None and COUNTS & os.environ.keys():
        return None
    return threads or (1 if 0 < unet_weights < SMALL_UNET else count_cores())


def check_processes(flag: str, processes: int) -> None:
    """Raises UserError: more processes on the CPU than cores, which only wait for each other. Two are always accepted:
    with them, several processes can be tried on any machine."""
    cores = count_cores()
    if processes > (most := max(2, cores)):
        raise UserError(
            f"{flag} {processes}: more processes than cores, of which {cores} may be used; give at most {most}"
        )


def _list_quotas(cgroups: Path, own: Path) -> list[float]:
    """Cores that the process's cgroups grant: version 2 in ``cpu.max``, version 1 in two files."""
    quotas, folders = [], {cgroups, cgroups / "cpu"}
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            folders |= {cgroups / controllers / path[1:], cgroups / "cpu" / path[1:]}
    for folder in folders:
        with suppress(OSError, ValueError):  # not there, or "max"
            quota, period = (folder / "cpu.max").read_text().split()
            quotas.append(int(quota) / int(period))
        with suppress(OSError, ValueError):
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            quotas.append(int(quota) / int(period))
    return [quota for quota in quotas if quota > 0]  # -1: none
