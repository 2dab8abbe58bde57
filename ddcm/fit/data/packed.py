"""Latents packed for travelling: tar files of windows and an index, in a folder or behind a URL.

    index.json       whose latents (digest, mel spec), the shape of a window, and how many each tar file has
    train-00000.tar  members 00000000.npy, ...: one window (C, L, F) float16 each; likewise val- and test-

The tar files are those of WebDataset (Aizman et al., "High performance I/O for large scale deep learning", 2019),
so ``webdataset`` reads them from disks, web servers and object stores. litdata was the other candidate: it
brings torchvision and boto3 along, its index may name pickle as the way to read items, and what does not lie in
one of its clouds it does not read. webdataset needs two small packages and runs any command that prints a file.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from dataclasses import dataclass

import numpy as np

from ddcm.errors import UserError, describe_error

FORMAT = 1
INDEX = "index.json"
NAME = re.compile(r"(train|val|test)-\d+\.tar")  # an index from elsewhere names no other file and no command


@dataclass(frozen=True)
class Packed:
    """What an index says."""

    root: str
    latent_digest: str
    shape: tuple[int, int, int]
    """(C, L, F) of every window."""
    tars: dict[str, dict[str, int]]
    """By split: windows in each tar file."""

    def count(self, split: str) -> int:
        return sum(self.tars[split].values())


def address(root: str, name: str) -> str:
    """Where a file lies: in the folder or under the URL ``root``, or at the place of ``{}`` in it."""
    return root.replace("{}", name) if "{}" in root else f"{root.rstrip('/')}/{name}"


def read_index(root: str) -> Packed:
    """Of a packed set.

    Args:
        root: a folder, a URL (http, https, gs, hf, sftp), or a command with ``{}`` for the file's name, such as
            ``pipe:aws s3 cp s3://bucket/set/{} -``.

    Raises:
        UserError: nothing there, or not such an index.
    """
    where = address(root, INDEX)
    try:
        with _open(where) as stream:
            index = json.loads(stream.read())
        if index["format"] != FORMAT:
            raise UserError(f"{where} has format {index['format']}, this version reads {FORMAT}; pack the latents anew")
        tars = {split: {str(name): int(n) for name, n in files.items()} for split, files in index["tars"].items()}
        shape = tuple(int(size) for size in index["shape"])
        digest = str(index["latent_digest"])
    except OSError as error:
        raise UserError(
            f"{where} cannot be read ({describe_error(error)}); python -m ddcm.fit.data.pack writes it"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where} is no index of packed latents, or damaged; pack the latents anew") from error
    if len(shape) != 3 or not tars.get("train") or not tars.get("val"):
        raise UserError(f"{where} lists no windows for train or for val; pack the latents anew")
    for name in (name for files in tars.values() for name in files):
        if not NAME.fullmatch(name):
            raise UserError(f"{where} names a file {name!r}; only files such as train-00000.tar are read")
    return Packed(root, digest, shape, tars)


def read_tar(packed: Packed, split: str, name: str) -> np.ndarray:
    """The windows of a tar file, (n, C, L, F) float16, in its order.

    Raises:
        UserError: missing, truncated, or not what the index says; NaN or infinite latents.
    """
    from webdataset.tariterators import tarfile_samples

    where = address(packed.root, name)
    windows = np.empty((packed.tars[split][name], *packed.shape), np.float16)
    found = 0
    try:
        for sample in tarfile_samples([{"url": where}]):
            window = np.load(io.BytesIO(sample["npy"]), allow_pickle=False)
            if window.dtype != np.float16 or window.shape != packed.shape or found == len(windows):
                raise UserError(f"{where} is not what its index says; copy or pack it anew")
            windows[found] = window
            found += 1
    except UserError:
        raise
    except (OSError, ValueError, KeyError, EOFError, tarfile.TarError) as error:
        raise UserError(
            f"{where} cannot be read or is damaged ({describe_error(error)}); copy or pack it anew"
        ) from error
    if found < len(windows):
        raise UserError(f"{where} is truncated: {found} of {len(windows)} windows are there; copy or pack it anew")
    if not np.isfinite(windows).all():
        raise UserError(f"{where}: NaN or infinite latents; pack it anew")
    return windows


def _open(where: str):
    try:
        from webdataset.gopen import gopen
    except ImportError:
        raise UserError("streaming needs webdataset: pip install 'ddcm[stream]'") from None
    return gopen(where)
