"""Audio -> cached latents -> batches of windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import Dataset

from ddcm.errors import UserError
from ddcm.fit.backbone import frozen_backbone
from ddcm.fit.data.cache import Latents, encode_all
from ddcm.fit.data.manifest import Entry, read_manifest, split_entries
from ddcm.fit.data.sampler import EvalBatches, TrainStream
from ddcm.runtime.distributed import run_on_rank_zero
from ddcm.runtime.files import cache_dir as default_cache_dir


class Windows(Dataset):
    """Windows of latents. Items: ``z`` (C, window, F) float32 and ``path``, the file of its first frame.

    Files are laid end to end and the whole is cut into windows, so that short files and ends of files are
    used too and no window is padded. A window may thus pass from one file to the next; to the codebook, which
    sees single cells, this makes no difference.
    """

    def __init__(
        self, latents: Latents, entries: Sequence[Entry], chosen: Sequence[int] | np.ndarray, window_frames: int
    ):
        numbers = np.asarray(chosen, np.int64)
        self.latents, self.entries = latents, entries
        self.chosen = numbers[latents.spans[numbers, 2] > 0]
        self.ends = np.cumsum(latents.spans[self.chosen, 2])
        self.window_frames = min(window_frames, int(self.ends[-1]))
        self._shards: dict[int, np.ndarray] = {}  # opened where they are read: memory maps do not travel

    @property
    def paths(self) -> list[str]:
        return [str(self.entries[index].path) for index in self.chosen]

    def __len__(self) -> int:
        return int(self.ends[-1]) // self.window_frames

    def __getitem__(self, index: int) -> dict:
        """Window ``index``.

        Raises:
            UserError: NaN or infinite latents, or a shard that was cut off since ``setup``; it is named.
        """
        begin = index * self.window_frames
        place = first = int(np.searchsorted(self.ends, begin, side="right"))
        parts, wanted = [], self.window_frames
        while wanted:
            shard, start, frames = self.latents.spans[self.chosen[place]].tolist()
            skipped = max(0, begin - int(self.ends[place] - frames))
            taken = min(wanted, frames - skipped)
            parts.append(self._read(shard, start + skipped, taken))
            wanted, place = wanted - taken, place + 1
        z = np.concatenate(parts).astype(np.float32).transpose(1, 0, 2)  # [C, window, F]
        return {"z": torch.from_numpy(np.ascontiguousarray(z)), "path": str(self.entries[self.chosen[first]].path)}

    def _read(self, shard: int, start: int, frames: int) -> np.ndarray:
        wrong = None
        try:
            if shard not in self._shards:
                self._shards[shard] = self.latents.shard(shard)
            part = self._shards[shard][start : start + frames]
        except (OSError, ValueError):  # no file any more, nothing in it, or half a frame
            wrong = "missing or truncated"
        else:
            if len(part) < frames:
                wrong = "truncated"
            elif not np.isfinite(part).all():
                wrong = "NaN or infinite latents"
        if wrong:
            path = self.latents.path(shard)
            raise UserError(f"{path}: {wrong}; delete it and run again: it alone is encoded anew")
        return part


class LatentData(L.LightningDataModule):
    """Windows of the latents of a collection of audio, encoded once by the frozen backbone.

    Args:
        root: a folder of audio (searched at every depth), or a .csv with a column ``path`` and perhaps
            ``split`` (train, val or test). Where no split is given, one file in ten goes to validation.
        backbone: hub name or folder of the backbone. On the command line it follows ``--model.backbone``.
        cache_dir: where encoded latents are kept; by default ``$DDCM_CACHE`` or ``~/.cache/ddcm``.
        batch_size: windows a step and process.
        window_frames: latent frames in a window, 25 to a second; a frame has 16 cells.
        workers: processes that read ahead. 0 reads in the training process, which is enough for latents.
        seed: of the order in which windows are met.
    """

    ROOTS = "a folder of audio, or a .csv with a column path"

    def __init__(
        self,
        root: str = "",
        backbone: str = "checkpoints/pocket",
        cache_dir: str | None = None,
        batch_size: int = 16,
        window_frames: int = 64,
        workers: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("window_frames", window_frames, 1),
            ("workers", workers, 0),
        ):
            if value < least:
                raise UserError(f"--data.{name} {value} is less than {least}")
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a rank may have no val windows
        self.root, self.backbone, self.batch_size, self.window_frames = root, backbone, batch_size, window_frames
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache_dir()
        self.workers, self.seed = workers, seed
        self.windows: dict[str, Windows] = {}
        self.encode_on = "cpu"  # where there is no trainer

    @property
    def device(self) -> torch.device:
        """This process's own: encoding and pinned memory follow it."""
        return self.trainer.strategy.root_device if self.trainer else torch.device(self.encode_on)

    def _require_root(self) -> None:
        """Here and not as a required argument: the parser would explain it in twenty lines."""
        if not self.root:
            raise UserError(f"--data.root is missing: give {self.ROOTS}")

    def setup(self, stage: str) -> None:
        if self.windows:
            return
        self._require_root()
        entries = run_on_rank_zero(lambda: read_manifest(self.root))
        latents = encode_all(entries, frozen_backbone(self.backbone, str(self.device)), self.cache_dir)
        readable = np.flatnonzero(latents.spans[:, 2])
        for split, chosen in split_entries([entries[index] for index in readable]).items():
            if chosen:
                self.windows[split] = Windows(latents, entries, readable[chosen], self.window_frames)

    # Return types are wide, because those of packed latents are other classes.

    def train_stream(self) -> Iterator[Any]:
        """A stream from the first batch on; every call gives a new one."""
        return TrainStream(self.windows["train"], self.batch_size, self.seed, self.workers, self.device.type == "cuda")

    def train_dataloader(self) -> Iterator[Any]:
        return self.train_stream()

    def val_dataloader(self) -> Iterable[Any]:
        return EvalBatches(self.windows["val"], self.batch_size)

    def test_dataloader(self) -> Iterable[Any]:
        """The manifest's test files; without any, the validation files."""
        return EvalBatches(self.windows.get("test", self.windows["val"]), self.batch_size)
