"""Ranks as torchrun or SLURM set them in the environment. No process group is needed."""

import os


def read_launched_rank() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) where neither torchrun nor srun started this process. A SLURM batch script
    has the job's variables too, but is one process. Only a step of the job has ranks."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ.get("RANK", 0)), int(os.environ["WORLD_SIZE"])
    if "SLURM_STEP_ID" in os.environ:
        tasks = os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS", 1))
        return int(os.environ.get("SLURM_PROCID", 0)), int(tasks)
    return 0, 1


def read_local_rank() -> tuple[int, int]:
    """(rank among the processes of this node, number of them)."""
    if "LOCAL_RANK" in os.environ:
        return int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if "SLURM_STEP_ID" in os.environ:
        local = int(os.environ.get("SLURM_LOCALID", 0))
        return local, local + 1  # SLURM writes the number as "4(x2)", so at least this many is assumed
    return 0, 1
