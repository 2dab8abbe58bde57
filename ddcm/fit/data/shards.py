"""One folder of latents of one backbone, in shards: whole or absent, written by many processes, read memory-mapped.

    cache.json     which latents these are: format, latent digest, mel spec, window
    NAME.f16       frames of C x F float16, file after file
    NAME.json      written after it: frames of each file, and why files without frames could not be read

NAME is a hash of the shard's files and their state, so any number of collections share the folder. Which files share a
shard depends on the files alone, so a file that is added, changed or removed affects one shard. Shards of deleted files
stay until the folder is deleted, which costs only encoding again.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ddcm.backbone import Backbone
from ddcm.errors import UserError, describe_error
from ddcm.fit.data.manifest import Entry
from ddcm.runtime.files import write_atomically

FORMAT = 2
WINDOW_S = 10.24  # audio is encoded in windows of this length, which AudioLDM2 was trained on
SHARD_BITS = 6  # a shard ends after a file whose name's hash ends in 6 zero bits: 64 files on average
SHARD_BYTES = 32 << 20  # of audio on disk; larger shards are cut further. A killed encoding loses one shard at most
SAMPLE_BYTES = 4096
ABANDONED_S = 24 * 3600  # a temporary file that has not been written to for so long is left by a killed process


@dataclass(frozen=True)
class ShardPlan:
    """The shards of a collection."""

    names: list[str]
    bounds: np.ndarray  # (shards + 1,) int64: first entry of each shard, and the number of entries.


def read_status(entries: Sequence[Entry]) -> np.ndarray:
    """(n, 2) int64: size in bytes and modification time in ns of each file; -1 if there is no file."""
    status = np.full((len(entries), 2), -1, np.int64)
    for index, entry in enumerate(entries):
        with suppress(OSError):
            stat = os.stat(entry.path)
            status[index] = stat.st_size, stat.st_mtime_ns
    return status


def plan_shards(entries: Sequence[Entry], status: np.ndarray) -> ShardPlan:
    """The shards of a collection with ``read_status``. A name is a hash of the names, sizes and modification times of
    the shard's files, and of a few kilobytes from the middle of the first file: files of unpacked archives may agree in
    all the rest."""
    digests = [hashlib.blake2b(os.fsencode(entry.name), digest_size=8).digest() for entry in entries]
    hashes = np.array([int.from_bytes(digest, "big") for digest in digests], np.uint64)
    starts = np.fromiter(_cut(hashes, status[:, 0].clip(min=0), 0, SHARD_BITS), np.int64)
    bounds = np.append(starts, len(entries))
    return ShardPlan([_hash_shard(entries[a:b], status[a:b]) for a, b in pairwise(bounds)], bounds)


def _cut(hashes: np.ndarray, sizes: np.ndarray, offset: int, bits: int) -> Iterator[int]:
    """First indices of runs that each end with a hash of ``bits`` zero bits; larger runs are cut at fewer bits. A limit
    that counts bytes from the last cut would move all later cuts when one file grows."""
    ends = np.flatnonzero((hashes & np.uint64((1 << bits) - 1)) == 0) + 1
    cuts = np.unique(np.concatenate([[0], ends, [len(hashes)]]))
    for a, b in pairwise(cuts):
        if bits and b - a > 1 and sizes[a:b].sum() > SHARD_BYTES:
            yield from _cut(hashes[a:b], sizes[a:b], offset + int(a), bits - 1)
        else:
            yield offset + int(a)


def _hash_shard(entries: Sequence[Entry], status: np.ndarray) -> str:
    digest = hashlib.sha256(status.astype("<i8").tobytes())
    digest.update(os.fsencode("\n".join(entry.name for entry in entries)))
    with suppress(OSError), open(entries[0].path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size // 2 - SAMPLE_BYTES // 2))
        digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:32]


def describe_latents(backbone: Backbone) -> dict:
    """What latents must agree in to be used together: the latent space, and how audio is encoded."""
    return {
        "format": FORMAT,
        "latent_digest": backbone.latent_digest,
        "mel": backbone.mel_spec.to_dict(),
        "window_s": WINDOW_S,
    }


def open_folder(cache_dir: Path, backbone: Backbone) -> Path:
    """The folder of this backbone's latents below ``cache_dir``. Creates it, or removes abandoned files from it. Raises
    UserError: it holds latents of another backbone, or it cannot be written."""
    expected = json.loads(json.dumps(describe_latents(backbone), sort_keys=True))  # JSON turns tuples into lists
    key = hashlib.sha256(json.dumps(expected, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_dir / "latents" / key
    path = folder / "cache.json"
    used = any(folder.glob("*.f16"))  # before path.is_file(): other writers create cache.json before their shards
    if used and not path.is_file():
        raise UserError(f"{folder} holds latents but no cache.json that says whose; delete the folder")
    if not path.is_file():
        with _writing(folder), write_atomically(path) as temporary:
            temporary.write_text(json.dumps(expected, indent=1))
        return folder
    try:
        stored = json.loads(path.read_text())
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise UserError(f"{path} is damaged; delete the folder to encode again")
    for name, value in expected.items():
        if stored.get(name) != value:
            other = f"latents of another backbone ({name} is {stored.get(name)}, not {value})"
            raise UserError(f"{folder} holds {other}; delete the folder or give another --data.cache_dir")
    for part in folder.glob(".*.part.*"):  # those of running writers, here or on another machine, are young
        with suppress(FileNotFoundError):  # another rank removed it
            if time.time() - part.stat().st_mtime > ABANDONED_S:
                part.unlink()
    return folder


def find_missing(folder: Path, names: Iterable[str]) -> list[int]:
    """Indices of the shards that are not written yet. Lists the folder once, which spares a shared disk."""
    files = set(os.listdir(folder))
    return [i for i, name in enumerate(names) if f"{name}.json" not in files or f"{name}.f16" not in files]


def write_shard(folder: Path, name: str, parts: Iterable[tuple[np.ndarray | None, str]]) -> None:
    """Write a shard, whole or not at all: of each file its latents (frames, C, F) float16, or None and the reason.
    Raises UserError: the folder cannot be written, or its disk is full. Finished shards stay."""
    frames, errors = [], []
    with _writing(folder):
        with write_atomically(folder / f"{name}.f16") as temporary, open(temporary, "wb") as file:
            for latents, error in parts:
                frames.append(0 if latents is None else len(latents))
                if latents is None:
                    errors.append(error)
                else:
                    file.write(latents.tobytes())
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut may leave a file with its name but without its data
        with write_atomically(folder / f"{name}.json") as temporary:
            temporary.write_text(json.dumps({"frames": frames, "errors": errors}))


def read_shards(folder: Path, plan: ShardPlan, frame_bytes: int) -> tuple[np.ndarray, list[str]]:
    """Positions (n, 3) int64 of each file's latents: shard, first frame there, frames; and one line for each file
    without latents. Reads no latents. Raises UserError: truncated or damaged shards; the message names them."""
    spans = np.zeros((int(plan.bounds[-1]), 3), np.int64)
    errors, broken = list[str](), list[str]()
    for shard, name in enumerate(plan.names):
        rows = spans[plan.bounds[shard] : plan.bounds[shard + 1]]
        try:
            content = json.loads((folder / f"{name}.json").read_bytes())
            frames = np.asarray(content["frames"], np.int64)
            size = os.stat(folder / f"{name}.f16").st_size
            intact = frames.shape == (len(rows),) and frames.min() >= 0 and frames.sum() * frame_bytes == size
        except (OSError, ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            broken.append(f"{name}.f16")
            continue
        rows[:, 0], rows[:, 1], rows[:, 2] = shard, np.cumsum(frames) - frames, frames
        errors += content["errors"]
    if broken:
        some = ", ".join(broken[:3]) + (", ..." if len(broken) > 3 else "")
        defect = f"truncated or damaged: {some} ({len(broken)} of {len(plan.names)} shards)"
        raise UserError(f"{folder}: {defect}; delete these and run again: only they are encoded anew")
    return spans, errors


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "free some space or give another --data.cache_dir; finished shards stay and are not encoded again"
        raise UserError(f"cannot write latents to {folder} ({describe_error(error)}); {advice}") from error
