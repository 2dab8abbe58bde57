"""Latents of a collection of audio, encoded once and read from memory-mapped files ever after.

A cache folder holds shards: ``00000.f16`` (frames of C x F float16, one file's after another's) and, written
after it, ``00000.json`` (how many frames each file has, or why it could not be read). A shard is there when its
JSON is: encoding that was killed goes on with the shards that are missing. ``index.json`` merges them.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ddcm import dist
from ddcm.audio import level, read_audio
from ddcm.backbone import Backbone
from ddcm.errors import UserError
from ddcm.files import whole
from ddcm.fit.manifest import Entry
from ddcm.mel import log_mel

WINDOW_S = 10.24  # the length that AudioLDM2 was trained on
BATCH = 4  # windows encoded at once
SHARD_BYTES, SHARD_FILES = 32 << 20, 64  # of audio on disk: what a killed encoding loses at most


@dataclass(frozen=True)
class Latents:
    """An encoded collection."""

    folder: Path
    channels: int
    bands: int
    spans: list[tuple[int, int, int]]
    """Where each entry lies: (shard, first frame, frames); no frames if it could not be read."""

    def shard(self, number: int) -> np.ndarray:
        """(frames, C, F) float16, memory-mapped."""
        return np.memmap(self.folder / f"{number:05d}.f16", np.float16, "r").reshape(-1, self.channels, self.bands)


def encode_all(entries: list[Entry], backbone: Backbone, cache_dir: Path) -> Latents:
    """Latents z of every entry; only what is not in the cache yet is encoded, shared out over ranks.

    Ranks wait for each other, so with many hours on many GPUs raise the process group's timeout or encode
    beforehand with one process. Ranks that do not share ``cache_dir`` each encode everything.

    Raises:
        UserError: nothing readable at all.
    """
    shards = list(_shards(entries))
    folder = cache_dir / "latents" / _key(entries, backbone)
    channels, bands = backbone.latent_channels, backbone.mel_spec.n_mels // 4

    def missing() -> list[int]:
        return [number for number in range(len(shards)) if not (folder / f"{number:05d}.json").is_file()]

    # 1. This rank's share; 2. what is still missing, because the others' files are not seen from here.
    mine = dist.share(missing(), dist.rank() if dist.active() else 0, dist.world_size() if dist.active() else 1)
    dist.barrier()
    _encode_shards(mine, shards, entries, backbone, folder)
    dist.barrier()
    _encode_shards(missing(), shards, entries, backbone, folder)

    parts = [json.loads((folder / f"{number:05d}.json").read_text()) for number in range(len(shards))]
    spans, errors = [], []
    for number, part in enumerate(parts):
        start = 0
        for frames in part["frames"]:
            spans.append((number, start, frames))
            start += frames
        errors += part["errors"]
    if not any(frames for _, _, frames in spans):
        raise UserError(f"none of {len(entries)} files could be read; the first: {errors[0]}")
    if dist.rank() == 0:
        with whole(folder / "index.json") as temporary:
            temporary.write_text(json.dumps({"spans": spans, "errors": errors, "files": [e.name for e in entries]}))
        if errors:
            warnings.warn(f"{len(errors)} of {len(entries)} files left out:\n  " + "\n  ".join(errors), stacklevel=2)
    return Latents(folder, channels, bands, spans)


def _key(entries: list[Entry], backbone: Backbone) -> str:
    """Names the latents: which space, which front end, which files. Splits are not part of it."""
    files = []
    for entry in entries:
        found = entry.path.stat() if entry.path.is_file() else None
        files.append((entry.name, found and found.st_size, found and found.st_mtime_ns))
    facts = [backbone.latent_digest, backbone.mel_spec.to_dict(), WINDOW_S, files]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _shards(entries: list[Entry]) -> Iterator[range]:
    """Runs of entries of at most SHARD_FILES files and about SHARD_BYTES on disk."""
    first, size = 0, 0
    for index, entry in enumerate(entries):
        if index > first and (size > SHARD_BYTES or index - first == SHARD_FILES):
            yield range(first, index)
            first, size = index, 0
        size += entry.path.stat().st_size if entry.path.is_file() else 0
    yield range(first, len(entries))


def _encode_shards(
    numbers: list[int], shards: list[range], entries: list[Entry], backbone: Backbone, folder: Path
) -> None:
    if not numbers:
        return
    total = sum(len(shards[number]) for number in numbers)
    with tqdm(total=total, desc="encoding latents", unit="file", disable=dist.rank() != 0) as progress:
        for number in numbers:
            frames, errors = [], []
            with whole(folder / f"{number:05d}.f16") as temporary, open(temporary, "wb") as file:
                for index in shards[number]:
                    try:
                        z = encode_file(entries[index].path, backbone)
                        file.write(z.numpy().tobytes())
                        frames.append(len(z))
                    except UserError as error:
                        frames.append(0)
                        errors.append(str(error))
                    progress.update()
            with whole(folder / f"{number:05d}.json") as temporary:
                temporary.write_text(json.dumps({"frames": frames, "errors": errors}))


@torch.no_grad()
def encode_file(path: Path, backbone: Backbone) -> torch.Tensor:
    """A recording -> z (frames, C, F) float16, 25 frames a second: every frame that holds any of its samples.

    Levelled as a whole, then windows of 10.24 s one after another; the last one is padded with silence in
    the waveform to whole latent frames, because 0 in the log-mel is not silence.
    """
    spec = backbone.mel_spec
    audio, _ = level(read_audio(path, spec.sample_rate))
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
