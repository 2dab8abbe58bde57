"""Ranks as a launcher (torchrun, srun) states them in the environment, before any process group."""

from __future__ import annotations

import os


def read_launched_rank() -> tuple[int, int]:
    """(rank, number of processes) as torchrun or srun say; (0, 1) where neither started this process.

    A SLURM batch script has the job's variables too, but is one process: only a step of the job has ranks.
    """
    if "WORLD_SIZE" in os.environ:
        return int(os.environ.get("RANK", 0)), int(os.environ["WORLD_SIZE"])
    if "SLURM_STEP_ID" in os.environ:
        tasks = os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS", 1))
        return int(os.environ.get("SLURM_PROCID", 0)), int(tasks)
    return 0, 1


def read_local_rank() -> tuple[int, int]:
    """(rank among this node's processes, number of them)."""
    if "LOCAL_RANK" in os.environ:
        return int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if "SLURM_STEP_ID" in os.environ:
        local = int(os.environ.get("SLURM_LOCALID", 0))
        return local, local + 1  # how many there are is written "4(x2)": each process looks after itself
    return 0, 1
