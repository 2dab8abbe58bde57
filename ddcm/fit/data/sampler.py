"""The order of training and validation batches. A resumed training gets the batches of the uninterrupted one."""

import functools
import warnings
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Any, Self

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ddcm.errors import UserError
from ddcm.runtime import distributed


def _permute(size: int, *seeds: int) -> torch.Tensor:
    seed = functools.reduce(lambda seed, part: seed * 1_000_003 + part, seeds)
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed % 2**63))


class ShuffledOrder:
    """Batches of a shuffled dataset: a function of (seed, batch number) alone. An epoch is one permutation of the
    dataset. The batch of all ranks together is a run of it, shared out interleaved (rank r takes items r, r + world,
    ...). So at every step two processes with batches of B see the items that one process with batches of 2B sees. Items
    that do not fill a batch are left to another epoch. ``len`` is the number of batches in an epoch."""

    def __init__(self, size: int, batch_size: int, seed: int):
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world = distributed.group_rank()
        self.layout: list[int] = []
        self._epoch, self._permutation = -1, torch.empty(0)

    def __len__(self) -> int:
        return max(1, self.size // (self.batch_size * self.world))

    def indices(self, number: int) -> list[int]:
        """This rank's items of batch ``number``."""
        epoch, position = divmod(number, len(self))
        if self._epoch != epoch:  # drawing a large permutation takes longer than reading a batch
            self._epoch, self._permutation = epoch, _permute(self.size, self.seed, epoch)
        order, total = self._permutation, self.batch_size * self.world
        if len(order) < total:  # a collection smaller than one batch is repeated
            order = order.repeat(-(-total // len(order)))
        return order[position * total : (position + 1) * total][self.rank :: self.world].tolist()

    def batches(self, start: int) -> Iterator[list[int]]:
        """Indices of batch ``start``, ``start + 1``, ... without end."""
        return map(self.indices, count(start))


class ShardedOrder:
    """Batches of a dataset in shards, such as tar files: a function of (seed, processes, workers, batch number) alone.
    Each reader, a worker of a rank, goes through shards of its own, one after another: it holds one in memory. An epoch
    permutes the shards, and the items within each. A rank's batches come from its workers in turn. ``layout`` holds
    what else the order depends on: processes, workers (0 is one reader, too) and items a batch. ``sizes`` are the
    numbers of items in the shards; item numbers run through the shards."""

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int, workers: int):
        self.sizes, self.batch_size, self.seed, self.workers = sizes, batch_size, seed, max(1, workers)
        self.starts = np.cumsum([0, *sizes]).tolist()
        self.rank, self.world = distributed.group_rank()
        self.layout = [self.world, workers, batch_size]

    def __len__(self) -> int:
        return max(1, self.starts[-1] // (self.batch_size * self.world))

    def batches(self, start: int) -> Iterator[list[int]]:
        workers = range(self.workers)
        skips = [len(range(worker, start, self.workers)) * self.batch_size for worker in workers]
        readers = [self._items(self.rank * self.workers + worker, skips[worker]) for worker in workers]
        for number in count(start):
            yield list(islice(readers[number % self.workers], self.batch_size))

    def _items(self, reader: int, skip: int) -> Iterator[int]:
        """The items of one reader without end, but for the first ``skip``."""
        for epoch in count():
            shards = _permute(len(self.sizes), self.seed, epoch, 0)
            for shard in shards[reader :: self.world * self.workers].tolist():
                if skip < self.sizes[shard]:
                    items = self.starts[shard] + _permute(self.sizes[shard], self.seed, epoch, shard + 1)
                    yield from items[skip:].tolist()
                skip = max(0, skip - self.sizes[shard])


Order = ShuffledOrder | ShardedOrder


class RepeatedOrder:
    """The first ``number`` batches of another order, again and again. Its length stays: Lightning cuts the epochs."""

    def __init__(self, order: Order, number: int):
        self.first = list(islice(order.batches(0), number))
        self.layout, self.length = [*order.layout, number], len(order)

    def __len__(self) -> int:
        return self.length

    def batches(self, start: int) -> Iterator[list[int]]:
        return (self.first[position % len(self.first)] for position in count(start))


class TrainStream:
    """Endless batches of a dataset. Lightning takes ``len`` as the length of an epoch and keeps ``state_dict`` in its
    checkpoints. The position counts the batches returned, not those that workers have read ahead, so resuming in the
    middle of an epoch is exact. An epoch has a multiple of ``step`` batches, so that its end cuts no training step."""

    def __init__(
        self, dataset: Dataset, order: Order | RepeatedOrder, workers: int = 0, pin_memory: bool = False, step: int = 1
    ):
        self.dataset, self.order, self.step = dataset, order, step
        self.workers, self.pin_memory = workers, pin_memory
        self.position = 0  # batches returned
        # The iterator must not refer to this stream: in a reference cycle its workers would stop too late.
        self._batches: Iterator | None = None

    def __len__(self) -> int:
        return -(-len(self.order) // self.step) * self.step

    def __iter__(self) -> Self:
        return self  # an epoch continues after the last one, with the same worker processes

    def __next__(self) -> Any:
        if self._batches is None:
            batches, workers = self.order.batches(self.position), self.workers
            loader = DataLoader(self.dataset, batch_sampler=batches, num_workers=workers, pin_memory=self.pin_memory)
            self._batches = iter(loader)
        try:
            batch = next(self._batches)
        except UserError as error:  # of a worker process: torch wraps its message in the worker's traceback
            raise UserError(str(error).rstrip().rpartition("UserError: ")[2]) from None
        self.position += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "layout": self.order.layout}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        before = state.get("layout", state.get("dealt", self.order.layout))  # version 0.1 writes "dealt", or neither
        if before != self.order.layout:
            layouts = f"{self.order.layout} (processes, workers, batch_size) instead of {before}"
            order = "windows come in another order than in the uninterrupted run"
            warnings.warn(f"resumed with {layouts}: {order}", stacklevel=2)
        self.position, self._batches = state["position"], None


class EvalBatches:
    """The given batches of a dataset, in order. Lightning would share a plain DataLoader out to ranks again."""

    def __init__(self, dataset: Dataset, batches: Sequence[list[int]]):
        self.dataset, self.batches = dataset, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(DataLoader(self.dataset, batch_sampler=self.batches))


def split_batches(items: Sequence[int], batch_size: int) -> list[list[int]]:
    """Runs of ``batch_size`` items; the last one may be shorter."""
    return [list(items[start : start + batch_size]) for start in range(0, len(items), batch_size)]
