"""Fitting on packed latents (``python -m ddcm.fit.data.pack``) in a folder, on a web server or in an object store.

For latents that do not fit the disk of the training machine. Needs the ``stream`` extra.

    index.json       latent digest, mel spec, shape of a window, and number of windows in each tar file
    train-00000.tar  members 00000000.npy, ...: one window (C, L, F) float16 each; likewise val- and test-

The tar files are those of WebDataset (Aizman et al., "High performance I/O for large scale deep learning", 2019);
``webdataset`` reads them from disks, web servers, object stores and commands. Its own pipeline cannot resume without
reading everything before. litdata resumes exactly, but reads neither plain web servers nor commands.
"""

import io
import json
import re
import tarfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ddcm.errors import UserError, describe_error
from ddcm.fit.data.cache import load_frozen_backbone
from ddcm.fit.data.latent_data import LatentData
from ddcm.fit.data.sampler import ShardedOrder, split_batches
from ddcm.runtime.distributed import group_rank, run_on_rank_zero

FORMAT = 1
INDEX = "index.json"
NAME = re.compile(r"(train|val|test)-\d+\.tar")  # a downloaded index must name no other file, and no command


class StreamedLatents(LatentData):
    """Windows of packed latents: ``--data ddcm.fit.data.StreamedLatents --data.root FOLDER_OR_URL``.

    The reading processes of all ranks share out the tar files. Each goes through its own without end, and holds one of
    them in memory. Batches are {"z": (B, C, L, F) float32}.

    A killed run that is resumed with the same numbers of processes, workers and windows a batch gets the batches of
    the uninterrupted run, and does not read those before them. With other numbers it warns and continues in another
    order. Unlike with ``LatentData``, two processes with batches of B do not get the windows of one process with
    batches of 2B.

    Args:
        root: the output of ``pack``: a folder, a URL (http, https, gs, hf, sftp), or a command with ``{}`` for the
            file's name, such as ``pipe:aws s3 cp s3://bucket/set/{} -``.
        backbone: hub name or folder of the backbone. On the command line it follows ``--model.backbone``.
        batch_size: windows a step and process.
        workers: reading processes of each process of the fit. With 0 (the value in configs/fit.yaml) training waits for
            each tar file.
        seed: of the order of windows.
    """

    ROOTS = "the folder or URL of latents packed by python -m ddcm.fit.data.pack"

    def __init__(
        self, root: str = "", backbone: str = "pocket", batch_size: int = 16, workers: int = 2,
        seed: int = 0,
    ):  # fmt: skip
        super().__init__(root, backbone, batch_size=batch_size, workers=workers, seed=seed)

    def load_datasets(self) -> dict[str, Any]:
        index = run_on_rank_zero(lambda: read_index(self.root))
        expected = load_frozen_backbone(self.backbone, str(self.device)).latent_digest
        if index.latent_digest != expected:
            latents = f"{self.root} holds latents {index.latent_digest}, but those of {self.backbone} are {expected}"
            raise UserError(f"--data.root {latents}; give the backbone that it was packed with, or pack the audio anew")
        return {split: PackedWindows(index, tars) for split, tars in index.tars.items() if tars}

    def train_order(self) -> ShardedOrder:
        order = ShardedOrder(self.datasets["train"].sizes, self.batch_size, self.seed, self.workers)
        readers, tars = order.world * order.workers, len(order.sizes)
        if readers > tars:
            raise UserError(
                f"{self.root} has {tars} tar files for {readers} readers ({order.world} processes x {order.workers} "
                "--data.workers); use fewer workers or pack with a smaller --windows_per_tar"
            )
        return order

    def eval_batches(self, split: str) -> list[list[int]]:
        """This rank's batches of a split. A rank reads tar files of its own, and no batch covers two."""
        sizes, (rank, world) = self.datasets[split].sizes, group_rank()
        starts = np.cumsum([0, *sizes])
        own = [range(starts[tar], starts[tar + 1]) for tar in range(rank, len(sizes), world)]
        return [batch for items in own for batch in split_batches(items, self.batch_size)]


@dataclass(frozen=True)
class PackedIndex:
    """The content of an index."""

    root: str
    latent_digest: str
    shape: tuple[int, ...]  # (C, L, F) of every window.
    tars: dict[str, dict[str, int]]  # By split: number of windows in each tar file.


class PackedWindows(Dataset):
    """The windows of a split's tar files. Items: {"z": (C, L, F) float32}. The last tar file read stays in memory."""

    def __init__(self, index: PackedIndex, tars: dict[str, int]):
        self.index, self.names, self.sizes = index, list(tars), list(tars.values())
        self.ends = np.cumsum(self.sizes)
        self._tar, self._windows = -1, np.empty(0)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        tar = int(np.searchsorted(self.ends, item, side="right"))
        if tar != self._tar:
            self._tar, self._windows = tar, read_tar(self.index, self.names[tar], self.sizes[tar])
        window = self._windows[item - int(self.ends[tar])]  # counted from the end
        return {"z": torch.from_numpy(window.astype(np.float32))}


def file_address(root: str, name: str) -> str:
    """The file ``name`` in the folder or under the URL ``root``, or in the command ``root`` at the place of ``{}``."""
    return root.replace("{}", name) if "{}" in root else f"{root.rstrip('/')}/{name}"


def read_index(root: str) -> PackedIndex:
    """The index of a packed set; ``StreamedLatents`` explains ``root``. Raises UserError: none there, or not valid."""
    try:
        from webdataset.gopen import gopen
    except ImportError:
        raise UserError("streaming needs webdataset: pip install 'ddcm[stream]'") from None
    address = file_address(root, INDEX)
    try:
        with gopen(address) as stream:
            index = json.loads(stream.read())
        if index["format"] != FORMAT:
            raise UserError(f"{address} has format {index['format']}, not {FORMAT}; pack the latents anew")
        tars = {split: {str(name): int(n) for name, n in files.items()} for split, files in index["tars"].items()}
        packed = PackedIndex(root, str(index["latent_digest"]), tuple(int(n) for n in index["shape"]), tars)
    except UserError:
        raise
    except OSError as error:
        reason = describe_error(error)
        raise UserError(f"{address} cannot be read ({reason}); python -m ddcm.fit.data.pack writes it") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{address} is no index of packed latents, or damaged; pack the latents anew") from error
    if len(packed.shape) != 3 or not tars.get("train") or not tars.get("val"):
        raise UserError(f"{address} lists no windows for train or for val; pack the latents anew")
    if wrong := [name for files in tars.values() for name in files if not NAME.fullmatch(name)]:
        raise UserError(f"{address} names a file {wrong[0]!r}; only files such as train-00000.tar are read")
    return packed


def read_tar(index: PackedIndex, name: str, count: int) -> np.ndarray:
    """The ``count`` windows of a tar file, (count, C, L, F) float16, in its order. Raises UserError: missing,
    truncated, or not as its index describes it; NaN or infinite latents."""
    from webdataset.tariterators import tarfile_samples

    address = file_address(index.root, name)
    windows: list[np.ndarray] = []
    try:
        for sample in tarfile_samples([{"url": address}]):
            window = np.load(io.BytesIO(sample["npy"]), allow_pickle=False)
            if window.dtype != np.float16 or window.shape != index.shape or len(windows) == count:
                raise UserError(f"{address} is not what its index says; copy or pack it anew")
            windows.append(window)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, EOFError, tarfile.TarError) as error:
        reason = describe_error(error)
        raise UserError(f"{address} cannot be read or is damaged ({reason}); copy or pack it anew") from error
    if len(windows) < count:
        raise UserError(f"{address} is truncated: {len(windows)} of {count} windows are there; copy or pack it anew")
    if not np.isfinite(windows).all():
        raise UserError(f"{address}: NaN or infinite latents; pack it anew")
    return np.stack(windows)
