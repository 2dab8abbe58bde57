"""Batches of a training that may be killed at any step and go on as if it had not been."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ddcm.errors import UserError
from ddcm.runtime import distributed


class Order:
    """Which items make up which batch: a function of (seed, number of the batch) alone.

    One epoch is one permutation of the dataset. A batch of all ranks together is a run of it, dealt out
    interleaved (rank r takes items r, r + world, ...): two processes with batches of B see at every step the
    items that one process with batches of 2B sees. What does not fill a batch waits for another epoch.
    """

    def __init__(self, size: int, batch_size: int, seed: int):
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world = (distributed.rank(), distributed.world_size()) if distributed.active() else (0, 1)
        self._epoch, self._permutation = -1, torch.empty(0)

    def __len__(self) -> int:
        return max(1, self.size // (self.batch_size * self.world))

    def indices(self, number: int) -> list[int]:
        """This rank's items of batch ``number``."""
        epoch, place = divmod(number, len(self))
        order, together = self._order(epoch), self.batch_size * self.world
        if len(order) < together:  # a collection smaller than one batch is repeated
            order = order.repeat(-(-together // len(order)))
        return order[place * together : (place + 1) * together][self.rank :: self.world].tolist()

    def _order(self, epoch: int) -> torch.Tensor:
        """The permutation of an epoch, kept while it lasts: a large one takes longer to draw than a batch to read."""
        if self._epoch != epoch:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
            self._epoch, self._permutation = epoch, torch.randperm(self.size, generator=generator)
        return self._permutation

    def batches(self, start: int) -> Iterator[list[int]]:
        """A batch sampler: the indices of batch ``start``, ``start + 1``, ... without end."""
        return map(self.indices, count(start))


def size_of(dataset: Dataset) -> int:
    """Items of a dataset that knows; torch's own type does not say that it does."""
    return len(dataset)  # type: ignore[arg-type]


class TrainStream:
    """Endless shuffled batches in the order of ``Order``.

    Lightning's loop asks ``len`` where an epoch ends and keeps ``state_dict`` in its checkpoints. It counts what
    has been handed over, not what workers have fetched ahead, so resuming in the middle of an epoch is exact.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int, workers: int = 0, pin_memory: bool = False):
        self.dataset, self.order = dataset, Order(size_of(dataset), batch_size, seed)
        self.workers, self.pin_memory = workers, pin_memory
        self.position = 0  # batches handed over
        # Nothing in the feed refers to this stream: only what is in no reference cycle stops its workers in time.
        self._feed: Iterator | None = None

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> TrainStream:
        return self  # an epoch goes on where the last one ended, with the same worker processes

    def __next__(self) -> Any:
        if self._feed is None:
            loader = DataLoader(
                self.dataset,
                batch_sampler=self.order.batches(self.position),
                num_workers=self.workers,
                pin_memory=self.pin_memory,
            )
            self._feed = iter(loader)
        with one_line():
            batch = next(self._feed)
        self.position += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position, self._feed = state["position"], None


@contextmanager
def one_line() -> Iterator[None]:
    """A worker process's UserError comes back wrapped in the worker's traceback; this takes it out again."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).rstrip().rpartition("UserError: ")[2]) from None


class EvalBatches:
    """Every item once, in order, dealt over ranks: no repeats, so sums over ranks are exact."""

    def __init__(self, dataset: Dataset, batch_size: int):
        self.dataset, self.batch_size = dataset, batch_size
        rank, world = (distributed.rank(), distributed.world_size()) if distributed.active() else (0, 1)
        self.mine = range(rank, size_of(dataset), world)

    def __len__(self) -> int:
        return -(-len(self.mine) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        groups = [list(self.mine[i : i + self.batch_size]) for i in range(0, len(self.mine), self.batch_size)]
        return iter(DataLoader(self.dataset, batch_sampler=groups))
