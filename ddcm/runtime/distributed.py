"""Collective operations over ranks, and shares of a list of work. With one process, all of them do nothing."""

import functools
import heapq
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as td

from ddcm.errors import UserError
from ddcm.runtime.ranks import read_launched_rank

T = TypeVar("T")
PATIENCE = timedelta(days=14)  # ranks may encode for unequal times; NCCL's own 10 minutes would end the job


def active() -> bool:
    """Whether there is a process group."""
    return td.is_available() and td.is_initialized()


def rank() -> int:
    """This process's rank: in the process group if there is one, else as torchrun or SLURM set it."""
    return td.get_rank() if active() else read_launched_rank()[0]


def world_size() -> int:
    return td.get_world_size() if active() else read_launched_rank()[1]


def group_rank() -> tuple[int, int]:
    """(rank, number of ranks) of the process group; (0, 1) without one, whatever launched this process."""
    return (td.get_rank(), td.get_world_size()) if active() else (0, 1)


def sum_over_ranks(*tensors: torch.Tensor) -> None:
    """Sum each tensor over all ranks, in place."""
    if active():
        for tensor in tensors:
            td.all_reduce(tensor)


def broadcast(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor of rank 0 on every rank, in place."""
    if active():
        td.broadcast(tensor, src=0)
    return tensor


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows (n, D) of every rank, interleaved (row 0 of each rank, row 1 of each, ...): (world * n, D). If rows are
    samples dealt to ranks round-robin, this is the batch of a single process. n is the same on every rank."""
    if not active():
        return rows
    parts = [torch.empty_like(rows) for _ in range(td.get_world_size())]
    td.all_gather(parts, rows.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)


def split_by_cost(costs: Sequence[float], index: int, count: int) -> list[int]:
    """Share ``index`` of ``count``: indices of items, most expensive first, each dealt to the share with least cost.
    Shares are disjoint, complete, and the same on every rank."""
    loads = [(0.0, number) for number in range(count)]
    mine = []
    for item in sorted(range(len(costs)), key=lambda item: (-costs[item], item)):
        load, share = heapq.heappop(loads)
        heapq.heappush(loads, (load + costs[item], share))
        if share == index:
            mine.append(item)
    return mine


def run_on_rank_zero(work: Callable[[], T]) -> T:
    """The result of rank 0's ``work`` on every rank; the others wait. For work that would load a shared disk if
    hundreds of processes did it. All ranks get the same result, even if their file systems round times differently.
    Raises UserError: that of rank 0, on every rank."""
    if not active():
        return work()
    answer: list[Any] = list(_catch(work)) if rank() == 0 else [None, None]
    td.broadcast_object_list(answer, src=0, group=_patient_group(td.group.WORLD))
    if answer[1] is not None:
        raise UserError(answer[1])
    return answer[0]


def run_on_every_rank(work: Callable[[], T]) -> T:
    """The result of this rank's own ``work``, once every rank has finished. Raises UserError: that of the first rank
    that had one, on every rank, so that no rank waits for another."""
    if not active():
        return work()
    result, message = _catch(work)
    messages: list[str | None] = [None] * world_size()
    td.all_gather_object(messages, message, group=_patient_group(td.group.WORLD))
    for message in messages:
        if message is not None:
            raise UserError(message)
    return result  # type: ignore[return-value]


def _catch(work: Callable[[], T]) -> tuple[T | None, str | None]:
    """(result, None), or (None, message of the UserError)."""
    try:
        return work(), None
    except UserError as error:
        return None, str(error)


def cpu_group() -> Any:
    """A group of all ranks that sends tensors of the CPU; None without a process group."""
    return _patient_group(td.group.WORLD) if active() else None


@functools.lru_cache(maxsize=1)
def _patient_group(world: Any) -> Any:
    """A gloo group, which waits on the CPU whatever the job's backend is. One for each default group."""
    return td.new_group(backend="gloo", timeout=PATIENCE)
