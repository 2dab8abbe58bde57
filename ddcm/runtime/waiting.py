"""Work that processes of one fit share: done by rank 0 for all, or by each and waited for without a time limit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as td

from ddcm.errors import UserError
from ddcm.runtime import distributed

T = TypeVar("T")
PATIENCE = timedelta(days=14)  # encoding may take ranks unequally long; NCCL's own 10 minutes would end the job


@functools.lru_cache(maxsize=1)
def _patient_group(world: Any) -> Any:
    """A gloo group: it waits on the CPU, whatever the job's backend. One for each default group."""
    return td.new_group(backend="gloo", timeout=PATIENCE)


def from_rank_zero(work: Callable[[], T]) -> T:
    """What ``work`` returns on rank 0, on every rank; the others wait.

    For what would load a shared disk: hundreds of processes that list and stat the same folder. What rank 0
    saw also decides for all, so that ranks cannot disagree about times that their file systems round.

    Raises:
        UserError: that of rank 0, on every rank.
    """
    if not distributed.active():
        return work()
    result: list[Any] = [None, None]
    if distributed.rank() == 0:
        try:
            result[0] = work()
        except UserError as error:
            result[1] = str(error)
    td.broadcast_object_list(result, src=0, group=_patient_group(td.group.WORLD))
    if result[1] is not None:
        raise UserError(result[1])
    return result[0]


def together(work: Callable[[], T]) -> T:
    """Each rank does its own ``work`` and gets its own result, when the last one has it.

    Raises:
        UserError: the first rank's that had one, on every rank, so that none waits for one that has left.
    """
    if not distributed.active():
        return work()
    mine: str | None = None
    errors: list[str | None] = [None] * distributed.world_size()
    try:
        result = work()
    except UserError as error:
        mine = str(error)
    td.all_gather_object(errors, mine, group=_patient_group(td.group.WORLD))
    for said in errors:
        if said is not None:
            raise UserError(said)
    return result
