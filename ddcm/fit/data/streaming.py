"""Fitting on packed latents (``python -m ddcm.fit.data.pack``) in a folder, on a web server or in an object store.

For collections whose latents do not fit the disk of the machine that fits. Needs the ``stream`` extra.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ddcm.errors import UserError
from ddcm.fit.backbone import frozen_backbone
from ddcm.fit.data.module import LatentData
from ddcm.fit.data.packed import Packed, read_index, read_tar
from ddcm.fit.data.sampler import one_line
from ddcm.runtime import distributed
from ddcm.runtime.distributed import run_on_rank_zero


class StreamedLatents(LatentData):
    """Windows of packed latents: ``--data ddcm.fit.data.StreamedLatents --data.root FOLDER_OR_URL``.

    Tar files are dealt out over all reading processes of all ranks; every reader goes through its own without
    end and holds one of them in memory. Batches are {"z": (B, C, L, F) float32}.

    A run that was killed and resumed with the same number of processes, workers and windows a batch meets the
    very batches of the uninterrupted run, without reading what lies before them. With other numbers the fit
    goes on, warned, in another order. Unlike ``LatentData``, two processes with batches of B do not meet the
    windows of one process with batches of 2B: no reader sees all tar files.

    Args:
        root: what ``pack`` wrote: a folder, a URL (http, https, gs, hf, sftp), or a command with ``{}`` for the
            file's name, such as ``pipe:aws s3 cp s3://bucket/set/{} -``.
        backbone: hub name or folder of the backbone. On the command line it follows ``--model.backbone``.
        batch_size: windows a step and process.
        workers: reading processes of each process of the fit; 0 makes training wait for each tar file, and is
            what configs/fit.yaml says for latents on a disk.
        seed: of the order in which windows are met.
    """

    ROOTS = "the folder or URL of latents packed by python -m ddcm.fit.data.pack"

    def __init__(
        self,
        root: str = "",
        backbone: str = "checkpoints/pocket",
        batch_size: int = 16,
        workers: int = 2,
        seed: int = 0,
    ):
        super().__init__(root, backbone, batch_size=batch_size, workers=workers, seed=seed)
        self.packed: Packed | None = None

    def setup(self, stage: str) -> None:
        if self.packed is not None:
            return
        self._require_root()
        packed = run_on_rank_zero(lambda: read_index(self.root))
        wanted = frozen_backbone(self.backbone, str(self.device)).latent_digest
        if packed.latent_digest != wanted:
            raise UserError(
                f"--data.root {self.root} holds latents {packed.latent_digest}, but those of {self.backbone} are "
                f"{wanted}; give the backbone that it was packed with, or pack the audio anew"
            )
        self.packed = packed

    @property
    def _index(self) -> Packed:
        assert self.packed is not None, "setup() comes first"
        return self.packed

    def train_stream(self) -> TarStream:
        """A stream from the first batch on; every call gives a new one."""
        return TarStream(self._index, self.batch_size, self.seed, self.workers, self.device.type == "cuda")

    def val_dataloader(self) -> TarBatches:
        return TarBatches(self._index, "val", self.batch_size)

    def test_dataloader(self) -> TarBatches:
        return TarBatches(self._index, "test" if self._index.tars.get("test") else "val", self.batch_size)


class TarStream:
    """Endless shuffled batches; what a rank's batch number n is follows from (seed, ranks, workers, n) alone.

    ``len`` is the number of batches in which all ranks together meet as many windows as there are.
    """

    def __init__(self, packed: Packed, batch_size: int, seed: int, workers: int, pin_memory: bool = False):
        self.packed, self.batch_size, self.seed = packed, batch_size, seed
        self.workers, self.pin_memory = workers, pin_memory
        self.rank, self.world = (distributed.rank(), distributed.world_size()) if distributed.active() else (0, 1)
        readers, tars = self.world * max(1, workers), len(packed.tars["train"])
        if readers > tars:
            raise UserError(
                f"{packed.root} has {tars} tar files for {readers} readers ({self.world} processes x {max(1, workers)}"
                " --data.workers); use fewer workers or pack with a smaller --windows_per_tar"
            )
        self.position = 0  # batches handed over
        self._feed: Iterator | None = None

    def __len__(self) -> int:
        return max(1, self.packed.count("train") // (self.batch_size * self.world))

    def __iter__(self) -> TarStream:
        return self  # an epoch goes on where the last one ended, with the same worker processes

    def __next__(self) -> Any:
        with one_line():
            if self._feed is None:
                windows = _Endless(self.packed, self.batch_size, self.seed, self.rank, self.world, self.position)
                loader = DataLoader(
                    windows, batch_size=self.batch_size, num_workers=self.workers, pin_memory=self.pin_memory
                )
                self._feed = iter(loader)
            batch = next(self._feed)
        self.position += 1
        return batch

    @property
    def _dealt(self) -> list[int]:
        return [self.world, self.workers, self.batch_size]

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "dealt": self._dealt}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.get("dealt", self._dealt) != self._dealt:
            warnings.warn(
                f"resumed with {self._dealt} (processes, workers, batch_size) instead of {state['dealt']}: "
                "windows come in another order than in the uninterrupted run",
                stacklevel=2,
            )
        self.position, self._feed = state["position"], None


class _Endless(IterableDataset):
    """One reader's windows, from those of batch ``start`` of its rank on. Windows: {"z": (C, L, F) float32}."""

    def __init__(self, packed: Packed, batch_size: int, seed: int, rank: int, world: int, start: int):
        self.packed, self.batch_size, self.seed = packed, batch_size, seed
        self.rank, self.world, self.start = rank, world, start

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        info = get_worker_info()
        workers, worker = (info.num_workers, info.id) if info else (1, 0)
        # Batches come from workers in turn, and a loader begins with its first one: which then has to be the
        # one whose turn it was.
        worker = (worker + self.start) % workers
        skip = len(range(worker, self.start, workers)) * self.batch_size
        names, epoch = list(self.packed.tars["train"]), 0
        while True:
            order = self._permutation(len(names), epoch, 0)
            for place in order[self.rank * workers + worker :: self.world * workers].tolist():
                count = self.packed.tars["train"][names[place]]
                if skip >= count:  # known from the index: not even opened
                    skip -= count
                    continue
                windows = read_tar(self.packed, "train", names[place])
                for index in self._permutation(count, epoch, place + 1)[skip:].tolist():
                    yield {"z": torch.from_numpy(windows[index].astype(np.float32))}
                skip = 0
            epoch += 1

    def _permutation(self, size: int, epoch: int, what: int) -> torch.Tensor:
        seed = ((self.seed * 1_000_003 + epoch) * 1_000_003 + what) % 2**63
        return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


class TarBatches:
    """Every window of a split once, tar files dealt over ranks: no repeats, so sums over ranks are exact."""

    def __init__(self, packed: Packed, split: str, batch_size: int):
        self.packed, self.split, self.batch_size = packed, split, batch_size
        rank, world = (distributed.rank(), distributed.world_size()) if distributed.active() else (0, 1)
        self.mine = distributed.split_round_robin(list(packed.tars[split]), rank, world)

    def __len__(self) -> int:
        return sum(-(-self.packed.tars[self.split][name] // self.batch_size) for name in self.mine)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for name in self.mine:
            windows = torch.from_numpy(read_tar(self.packed, self.split, name))
            for z in windows.split(self.batch_size):
                yield {"z": z.float()}
