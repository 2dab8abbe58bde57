"""Latents of a collection of audio, encoded once and read from memory-mapped files ever after.

A folder below the cache holds the shards of one backbone's latents (``shards``); which files a shard has, and
its name, follow from the files (``plan``). So encoding that was killed goes on with the shards that are missing,
a file that is added or changed costs one shard, and collections share what they have in common.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ddcm.backbone import Backbone
from ddcm.errors import UserError, describe_error
from ddcm.fit.data.encode import encode_file
from ddcm.fit.data.manifest import Entry
from ddcm.fit.data.shards import file_facts, missing, open_folder, plan_shards, read_shards, write_shard
from ddcm.runtime import distributed
from ddcm.runtime.distributed import run_on_every_rank, run_on_rank_zero

NAMED = 20  # files that the warning about unreadable ones lists


@dataclass(frozen=True)
class Latents:
    """An encoded collection. What lies in memory is 24 bytes a file; latents stay on disk."""

    folder: Path
    channels: int
    bands: int
    shards: list[str]
    spans: np.ndarray
    """(n, 3) int64, where each entry lies: shard, first frame, frames; no frames if it could not be read."""
    errors: list[str]
    """One line for each file that could not be read."""

    def path(self, number: int) -> Path:
        return self.folder / f"{self.shards[number]}.f16"

    def shard(self, number: int) -> np.ndarray:
        """(frames, C, F) float16, memory-mapped."""
        with open(self.path(number), "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mapped, "madvise"):  # windows are met at random: what is read ahead would be many times their size
            mapped.madvise(mmap.MADV_RANDOM)
        return np.frombuffer(mapped, np.float16).reshape(-1, self.channels, self.bands)


def encode_all(entries: Sequence[Entry], backbone: Backbone, cache_dir: Path) -> Latents:
    """Latents z of every entry; only what is not in the cache yet is encoded, shared out over ranks.

    Rank 0 looks at the files and tells the others: a shared disk is spared hundreds of equal listings.
    Ranks wait for the last one without a time limit. Ranks that do not share ``cache_dir`` each encode
    everything, after their share.

    Raises:
        UserError: nothing readable at all, a cache of another backbone, damaged shards, or a full disk.
    """
    names, bounds = run_on_rank_zero(lambda: plan_shards(entries, file_facts(entries)))
    folder = run_on_every_rank(lambda: open_folder(cache_dir, backbone))

    def encode(numbers: list[int]) -> None:
        _encode_shards(numbers, names, bounds, entries, backbone, folder)

    rank, world = (distributed.rank(), distributed.world_size()) if distributed.active() else (0, 1)
    # 1. This rank's share. Counted on the whole list: ranks may already see each other's first shards.
    mine = set(distributed.split_round_robin(range(len(names)), rank, world))
    run_on_every_rank(lambda: encode([number for number in missing(folder, names) if number in mine]))
    # 2. What is still missing, because the others' files are not seen from here.
    run_on_every_rank(lambda: encode(missing(folder, names)))

    width = backbone.latent_channels * (backbone.mel_spec.n_mels // 4)
    spans, errors = run_on_every_rank(lambda: read_shards(folder, names, bounds, 2 * width))
    if not spans[:, 2].any():
        raise UserError(f"none of {len(entries)} files could be read; the first: {errors[0]}")
    if errors and distributed.rank() == 0:
        more = f"\n  and {len(errors) - NAMED} more" if len(errors) > NAMED else ""
        listed = "\n  ".join(errors[:NAMED]) + more
        warnings.warn(f"{len(errors)} of {len(entries)} files left out:\n  {listed}", stacklevel=2)
    return Latents(folder, backbone.latent_channels, backbone.mel_spec.n_mels // 4, names, spans, errors)


def _encode_shards(
    numbers: list[int],
    names: list[str],
    bounds: np.ndarray,
    entries: Sequence[Entry],
    backbone: Backbone,
    folder: Path,
) -> None:
    total = int(sum(bounds[number + 1] - bounds[number] for number in numbers))
    with tqdm(
        total=total, desc="encoding latents", unit="file", disable=not total or distributed.rank() != 0
    ) as progress:
        for number in numbers:
            chosen = entries[bounds[number] : bounds[number + 1]]
            write_shard(folder, names[number], _encoded(chosen, backbone, progress))


def _encoded(entries: Sequence[Entry], backbone: Backbone, progress: tqdm) -> Iterator[tuple[np.ndarray | None, str]]:
    for entry in entries:
        try:
            yield encode_file(entry.path, backbone).numpy(), ""
        except UserError as error:
            yield None, str(error)
        except OSError as error:  # of reading: a full disk is not what is wrong here
            raise UserError(f"{entry.path}: {describe_error(error)}; run again to go on") from error
        progress.update()
