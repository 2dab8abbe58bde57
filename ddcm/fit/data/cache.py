"""Latents of a collection of audio, encoded once and then read from memory-mapped files.

The cache has a folder for each backbone's latents, in ``shards``. A killed encoding continues with the missing shards;
an added or changed file costs one shard; collections share the files that they have in common.
"""

import functools
import mmap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ddcm.audio.files import read_audio
from ddcm.audio.level import normalise_level
from ddcm.audio.mel import log_mel
from ddcm.backbone import Backbone, load
from ddcm.errors import UserError, describe_error
from ddcm.fit.data.manifest import Entry
from ddcm.fit.data.shards import WINDOW_S, find_missing, open_folder, plan_shards, read_shards, read_status, write_shard
from ddcm.runtime import distributed
from ddcm.runtime.distributed import run_on_every_rank, run_on_rank_zero

LISTED = 20  # files that the warning about unreadable ones lists
BATCH = 4  # windows encoded at once


@functools.lru_cache(maxsize=1)
def load_frozen_backbone(name: str, device: str) -> Backbone:
    """The backbone in float32, loaded once: the data module encodes with it, the module decodes. It is not an
    ``nn.Module``, so it is in no checkpoint, no optimizer and no DDP bucket."""
    return load(name, device=device)


@dataclass(frozen=True)
class Latents:
    """An encoded collection. It takes 24 bytes of memory a file; the latents stay on disk."""

    folder: Path
    channels: int
    bands: int
    shards: list[str]
    spans: np.ndarray  # (n, 3) int64, of each entry: shard, first frame, frames; no frames if it could not be read
    errors: list[str]  # One line for each file that could not be read.

    def path(self, number: int) -> Path:
        return self.folder / f"{self.shards[number]}.f16"

    def shard(self, number: int) -> np.ndarray:
        """(frames, C, F) float16, memory-mapped."""
        with open(self.path(number), "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mapped, "madvise"):  # windows are read at random: reading ahead would read many times their size
            mapped.madvise(mmap.MADV_RANDOM)
        return np.frombuffer(mapped, np.float16).reshape(-1, self.channels, self.bands)


def encode_all(entries: Sequence[Entry], backbone: Backbone, cache_dir: Path) -> Latents:
    """Encode every entry that is not in the cache; return the latents z of all. Ranks share the work and wait for the
    last one without a time limit. Rank 0 alone lists the files, which spares a shared disk. If ranks do not share
    ``cache_dir``, each encodes its share first and then the rest. Raises UserError: no file can be read, a cache of
    another backbone, damaged shards, or a full disk."""
    plan = run_on_rank_zero(lambda: plan_shards(entries, read_status(entries)))
    folder = run_on_every_rank(lambda: open_folder(cache_dir, backbone))

    def encode(numbers: list[int]) -> None:
        total = int(sum(plan.bounds[number + 1] - plan.bounds[number] for number in numbers))
        hidden = not total or distributed.rank() != 0
        with tqdm(total=total, desc="encoding latents", unit="file", disable=hidden) as progress:
            for number in numbers:
                members = entries[plan.bounds[number] : plan.bounds[number + 1]]
                write_shard(folder, plan.names[number], _encode(members, backbone, progress))

    # The share is one of the whole list: ranks may already see each other's first shards.
    rank, world = distributed.group_rank()
    own = range(len(plan.names))[rank::world]
    run_on_every_rank(lambda: encode([number for number in find_missing(folder, plan.names) if number in own]))
    run_on_every_rank(lambda: encode(find_missing(folder, plan.names)))

    bands = backbone.mel_spec.n_mels // 4
    spans, errors = run_on_every_rank(lambda: read_shards(folder, plan, 2 * backbone.latent_channels * bands))
    if not spans[:, 2].any():
        raise UserError(f"none of {len(entries)} files could be read; the first: {errors[0]}")
    if errors and distributed.rank() == 0:
        more = f"\n  and {len(errors) - LISTED} more" if len(errors) > LISTED else ""
        lines = "\n  ".join(errors[:LISTED]) + more
        warnings.warn(f"{len(errors)} of {len(entries)} files left out:\n  {lines}", stacklevel=2)
    return Latents(folder, backbone.latent_channels, bands, plan.names, spans, errors)


def _encode(entries: Sequence[Entry], backbone: Backbone, progress: tqdm) -> Iterator[tuple[np.ndarray | None, str]]:
    for entry in entries:
        try:
            yield encode_file(entry.path, backbone).numpy(), ""
        except UserError as error:
            yield None, str(error)
        except OSError as error:  # a reading error; _writing would call it a full disk
            raise UserError(f"{entry.path}: {describe_error(error)}; run again to go on") from error
        progress.update()


@torch.no_grad()
def encode_file(path: Path, backbone: Backbone) -> torch.Tensor:
    """Encode an audio file to z (frames, C, F) float16, 25 frames a second. The level of the whole file is normalised.
    Windows of 10.24 s are encoded apart. The waveform of the last one is padded with silence to whole latent frames,
    because 0 in the log-mel is not silence. Raises UserError: the file is not readable as audio, or its latents are
    NaN, infinite or beyond float16."""
    spec = backbone.mel_spec
    audio, _ = normalise_level(read_audio(path, spec.sample_rate))
    frame = 4 * spec.hop
    window = round(WINDOW_S * spec.sample_rate / frame) * frame
    audio = torch.nn.functional.pad(audio, (0, -len(audio) % frame))
    whole_windows = audio[: len(audio) // window * window].view(-1, window)
    rest = audio[whole_windows.numel() :][None]
    batches = [*whole_windows.split(BATCH), *([rest] if rest.numel() else [])] if len(audio) >= window else [rest]
    parts = [backbone.encode(log_mel(batch.to(backbone.device), spec)) for batch in batches]
    z = torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts]).cpu()  # [frames, C, F]
    if not torch.isfinite(z.half()).all():
        raise UserError(f"{path}: its latents do not fit float16")
    return z.half()
