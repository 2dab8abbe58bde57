"""Several processes as one: ranks, sums over ranks, and a share of a list of work."""

from __future__ import annotations

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
PATIENCE = timedelta(days=14)  # encoding may take ranks unequally long; NCCL's own 10 minutes would end the job


def active() -> bool:
    return td.is_available() and td.is_initialized()


def rank() -> int:
    """This process's rank: of the process group if there is one, else what torchrun or SLURM say."""
    if active():
        return td.get_rank()
    return read_launched_rank()[0]


def world_size() -> int:
    if active():
        return td.get_world_size()
    return read_launched_rank()[1]


def group_rank() -> tuple[int, int]:
    """(rank, number of ranks) of the process group; (0, 1) without one, whatever launched this process."""
    return (td.get_rank(), td.get_world_size()) if active() else (0, 1)


def sum_over_ranks(*tensors: torch.Tensor) -> None:
    """Add each tensor up over all ranks, in place. One process: nothing to do."""
    if active():
        for tensor in tensors:
            td.all_reduce(tensor)


def broadcast(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor of rank 0, on every rank, in place."""
    if active():
        td.broadcast(tensor, src=0)
    return tensor


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows (n, D) of every rank, interleaved (row 0 of each rank, row 1 of each, ...): (world * n, D).

    Interleaved so that the order is the one in which a single process would have met them when ranks are
    dealt samples round-robin. Every rank must bring the same n.
    """
    if not active():
        return rows
    parts = [torch.empty_like(rows) for _ in range(td.get_world_size())]
    td.all_gather(parts, rows.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)


def count_rows(rows: torch.Tensor) -> int:
    """Rows of all ranks together; every rank has as many."""
    return len(rows) * (td.get_world_size() if active() else 1)


def pick_rows(rows: torch.Tensor, chosen: torch.Tensor, block: int) -> torch.Tensor:
    """Rows (n, D) of the whole batch by their index there: (len(chosen), D), the same on every rank.

    The whole batch is what one process would have held: blocks of ``block`` rows (the cells of one sample),
    dealt to the ranks round-robin. Each rank fills in the rows that it has; the sum is everybody's.
    """
    chosen = chosen.to(rows.device)
    if not active():
        return rows[chosen]
    block_index = chosen // block
    mine = block_index % td.get_world_size() == td.get_rank()
    local = block_index // td.get_world_size() * block + chosen % block
    picked = rows.new_zeros(len(chosen), rows.shape[1])
    picked[mine] = rows[local[mine]]
    td.all_reduce(picked)
    return picked


def barrier() -> None:
    """Wait until every rank is here. One process: nothing to do."""
    if active():
        td.barrier()


def split_round_robin(items: Sequence[T], index: int, count: int) -> list[T]:
    """Every ``count``-th item from ``index``: disjoint, together everything."""
    return list(items[index::count])


def split_by_cost(costs: Sequence[float], index: int, count: int) -> list[int]:
    """Places of this process's items, dearest first: each item goes to who has least so far. Disjoint, together
    everything, and the same whoever asks."""
    loads = [(0.0, number) for number in range(count)]
    mine = []
    for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
        load, taker = heapq.heappop(loads)
        heapq.heappush(loads, (load + costs[place], taker))
        if taker == index:
            mine.append(place)
    return mine


@functools.lru_cache(maxsize=1)
def _patient_group(world: Any) -> Any:
    """A gloo group: it waits on the CPU, whatever the job's backend. One for each default group."""
    return td.new_group(backend="gloo", timeout=PATIENCE)


def run_on_rank_zero(work: Callable[[], T]) -> T:
    """What ``work`` returns on rank 0, on every rank; the others wait.

    For what would load a shared disk: hundreds of processes that list and stat the same folder. What rank 0
    saw also decides for all, so that ranks cannot disagree about times that their file systems round.

    Raises:
        UserError: that of rank 0, on every rank.
    """
    if not active():
        return work()
    result: list[Any] = [None, None]
    if rank() == 0:
        try:
            result[0] = work()
        except UserError as error:
            result[1] = str(error)
    td.broadcast_object_list(result, src=0, group=_patient_group(td.group.WORLD))
    if result[1] is not None:
        raise UserError(result[1])
    return result[0]


def run_on_every_rank(work: Callable[[], T]) -> T:
    """Each rank does its own ``work`` and gets its own result, when the last one has it.

    Raises:
        UserError: the first rank's that had one, on every rank, so that none waits for one that has left.
    """
    if not active():
        return work()
    mine: str | None = None
    errors: list[str | None] = [None] * world_size()
    try:
        result = work()
    except UserError as error:
        mine = str(error)
    td.all_gather_object(errors, mine, group=_patient_group(td.group.WORLD))
    for said in errors:
        if said is not None:
            raise UserError(said)
    return result
