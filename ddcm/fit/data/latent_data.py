"""Audio -> cached latents -> batches of windows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import Dataset

from ddcm.errors import UserError
from ddcm.fit.data.cache import Latents, encode_all, load_frozen_backbone
from ddcm.fit.data.manifest import Entry, read_manifest, split_entries
from ddcm.fit.data.sampler import EvalBatches, Order, RepeatedOrder, ShuffledOrder, TrainStream, split_batches
from ddcm.runtime.distributed import group_rank, run_on_rank_zero
from ddcm.runtime.files import cache_dir as default_cache_dir


class Windows(Dataset):
    """Windows of latents. Items: ``z`` (C, window, F) float32 and ``path``, the file of the window's first frame. The
    files are concatenated and cut into windows, so short files and the ends of files are used and no window is padded.
    A window may cover two files; the codebook sees single cells, so it is not affected."""

    def __init__(self, latents: Latents, entries: Sequence[Entry], chosen: np.ndarray, window_frames: int):
        self.latents, self.entries = latents, entries
        self.chosen = chosen[latents.spans[chosen, 2] > 0]
        self.ends = np.cumsum(latents.spans[self.chosen, 2])
        self.window_frames = min(window_frames, int(self.ends[-1]))
        self._shards: dict[int, np.ndarray] = {}  # opened in the process that reads: memory maps cannot be sent

    def __len__(self) -> int:
        return int(self.ends[-1]) // self.window_frames

    def __getitem__(self, index: int) -> dict:
        """Window ``index``. Raises UserError: NaN or infinite latents, or a shard truncated after ``setup``."""
        begin = index * self.window_frames
        position = first = int(np.searchsorted(self.ends, begin, side="right"))
        parts, wanted = [], self.window_frames
        while wanted:
            shard, start, frames = self.latents.spans[self.chosen[position]].tolist()
            skipped = max(0, begin - int(self.ends[position] - frames))
            taken = min(wanted, frames - skipped)
            parts.append(self._read(shard, start + skipped, taken))
            wanted, position = wanted - taken, position + 1
        z = np.concatenate(parts).astype(np.float32).transpose(1, 0, 2)  # [C, window, F]
        return {"z": torch.from_numpy(np.ascontiguousarray(z)), "path": str(self.entries[self.chosen[first]].path)}

    def _read(self, shard: int, start: int, frames: int) -> np.ndarray:
        try:
            if shard not in self._shards:
                self._shards[shard] = self.latents.shard(shard)
            part = self._shards[shard][start : start + frames]
        except (OSError, ValueError):  # the file is gone, is empty, or ends within a frame
            part = np.empty(0)
        if len(part) == frames and np.isfinite(part).all():
            return part
        defect = "NaN or infinite latents" if len(part) == frames else "missing or truncated"
        path = self.latents.path(shard)
        raise UserError(f"{path}: {defect}; delete it and run again: it alone is encoded anew")


class LatentData(L.LightningDataModule):
    """Windows of the latents of a collection of audio, encoded once by the frozen backbone.

    Args:
        root: a folder of audio (searched at every depth), or a .csv with a column ``path`` and perhaps
            ``split`` (train, val or test). Without a split, one file in ten goes to validation.
        backbone: hub name or folder of the backbone. On the command line it follows ``--model.backbone``.
        cache_dir: folder of the encoded latents; by default ``$DDCM_CACHE`` or ``~/.cache/ddcm``.
        batch_size: windows a step and process.
        window_frames: latent frames in a window, 25 to a second; a frame has 16 cells.
        workers: processes that read ahead. 0 reads in the training process, which is enough for latents on a disk.
        seed: of the order of windows.
    """

    ROOTS = "a folder of audio, or a .csv with a column path"

    def __init__(
        self, root: str = "", backbone: str = "pocket", cache_dir: str | None = None, batch_size: int = 16,
        window_frames: int = 64, workers: int = 0, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a rank may have no val windows
        self.root, self.backbone, self.batch_size, self.window_frames = root, backbone, batch_size, window_frames
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache_dir()
        self.workers, self.seed = workers, seed
        for name, least in (("batch_size", 1), ("window_frames", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--data.{name} {getattr(self, name)} is less than {least}")
        self.datasets: dict[str, Any] = {}  # of each split, with len()
        self.device_without_trainer = "cpu"

    @classmethod
    def load_from_checkpoint(cls, *arguments: Any, **options: Any) -> Any:
        """A checkpoint must not choose what is read: it holds no options of the data."""
        raise UserError(f"a checkpoint holds no options of the data: make a {cls.__name__} of its own arguments")

    @property
    def device(self) -> torch.device:
        """The device of this process, for encoding."""
        return self.trainer.strategy.root_device if self.trainer else torch.device(self.device_without_trainer)

    def setup(self, stage: str) -> None:
        if not self.root:  # not a required argument: the parser's message would have twenty lines
            raise UserError(f"--data.root is missing: give {self.ROOTS}")
        if not self.datasets:
            self.datasets = self.load_datasets()

    def load_datasets(self) -> dict[str, Any]:
        """The windows of each split."""
        entries = run_on_rank_zero(lambda: read_manifest(self.root))
        latents = encode_all(entries, load_frozen_backbone(self.backbone, str(self.device)), self.cache_dir)
        readable = np.flatnonzero(latents.spans[:, 2])
        splits = split_entries([entries[index] for index in readable])
        chosen = {split: readable[indices] for split, indices in splits.items() if indices}
        return {split: Windows(latents, entries, own, self.window_frames) for split, own in chosen.items()}

    def train_order(self) -> Order:
        return ShuffledOrder(len(self.datasets["train"]), self.batch_size, self.seed)

    def eval_batches(self, split: str) -> list[list[int]]:
        """This rank's batches of a split. Every window is in one batch of one rank, so sums over ranks are exact."""
        rank, world = group_rank()
        return split_batches(range(len(self.datasets[split]))[rank::world], self.batch_size)

    def train_dataloader(self) -> TrainStream:
        """A new stream from the first batch on; with ``overfit_batches``, of so many batches again and again."""
        order = self.train_order()
        few, step = getattr(self.trainer, "overfit_batches", 0), getattr(self.trainer, "accumulate_grad_batches", 1)
        number = few if isinstance(few, int) else max(1, int(few * len(order)))  # or a share of them
        few_batches = RepeatedOrder(order, number) if few else order
        return TrainStream(self.datasets["train"], few_batches, self.workers, self.device.type == "cuda", step)

    def val_dataloader(self) -> EvalBatches:
        return EvalBatches(self.datasets["val"], self.eval_batches("val"))

    def test_dataloader(self) -> EvalBatches:
        """The windows of the split test; if it is empty, those of val."""
        split = "test" if "test" in self.datasets else "val"
        return EvalBatches(self.datasets[split], self.eval_batches(split))
