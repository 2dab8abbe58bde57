"""One folder of latents of one backbone: shards that are whole or not there, written by many, read memory-mapped.

    cache.json     whose latents these are: latent digest, mel spec, window, format
    NAME.f16       frames of C x F float16, one file's after another's
    NAME.json      written after it: frames of each file, and why files of no frames could not be read

NAME says which files in which state (``plan_shards``), so any number of collections share the folder. Shards of files
that have gone stay until the folder is deleted, which costs nothing but encoding again. Which files share a shard
follows from the files alone, so that a file which is added, changed or removed concerns its own shard only.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import numpy as np

from ddcm.backbone import Backbone
from ddcm.errors import UserError, describe_error
from ddcm.fit.data.encode import WINDOW_S
from ddcm.fit.data.manifest import Entry
from ddcm.runtime.files import write_atomically

FORMAT = 2
SHARD_BITS = 6  # a shard ends after a name whose hash ends in 6 zero bits: 64 files on average
SHARD_BYTES = 32 << 20  # of audio on disk; runs above it are cut further. A killed encoding loses one shard at most
SAMPLE_BYTES = 4096
ABANDONED_S = 24 * 3600  # a temporary file that nobody has written to for so long has no writer any more


def facts_of(backbone: Backbone) -> dict:
    """What makes latents comparable: which space they are in and how audio came there."""
    return {
        "format": FORMAT,
        "latent_digest": backbone.latent_digest,
        "mel": backbone.mel_spec.to_dict(),
        "window_s": WINDOW_S,
    }


def open_folder(cache_dir: Path, backbone: Backbone) -> Path:
    """The folder of this backbone's latents below ``cache_dir``, made if need be and cleared of abandoned files.

    Raises:
        UserError: what lies there is another backbone's, or it cannot be written.
    """
    facts = json.loads(json.dumps(facts_of(backbone), sort_keys=True))  # tuples as JSON gives them back
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_dir / "latents" / key
    about = folder / "cache.json"
    used = any(folder.glob("*.f16"))  # asked first: another writer's cache.json comes before its shards
    if used and not about.is_file():
        raise UserError(f"{folder} holds latents but no cache.json that says whose; delete the folder")
    if about.is_file():
        try:
            found = json.loads(about.read_text())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UserError(f"{about} is damaged; delete the folder to encode again")
        for name, value in facts.items():
            if found.get(name) != value:
                raise UserError(
                    f"{folder} holds latents of another backbone ({name} is {found.get(name)}, not {value}); "
                    "delete the folder or give another --data.cache_dir"
                )
        _sweep(folder)
    else:
        with _writable(folder), write_atomically(about) as temporary:
            temporary.write_text(json.dumps(facts, indent=1))
    return folder


def _sweep(folder: Path) -> None:
    """Remove what killed writers left. Files of running ones, here or on another machine, are young."""
    for path in folder.glob(".*.part.*"):
        with suppress(FileNotFoundError):  # another rank's sweep
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                path.unlink()


def missing(folder: Path, names: Iterable[str]) -> list[int]:
    """Indices of the shards that are still to be written. One listing, not two questions for each shard."""
    there = set(os.listdir(folder))
    return [i for i, name in enumerate(names) if f"{name}.json" not in there or f"{name}.f16" not in there]


def write_shard(folder: Path, name: str, parts: Iterable[tuple[np.ndarray | None, str]]) -> None:
    """A shard, whole or not at all.

    Args:
        parts: of each file its latents, (frames, C, F) float16, or None and why there are none.

    Raises:
        UserError: the folder cannot be written, or its disk is full. Finished shards stay.
    """
    frames, errors = [], []
    with _writable(folder):
        with write_atomically(folder / f"{name}.f16") as temporary, open(temporary, "wb") as file:
            for latents, error in parts:
                frames.append(0 if latents is None else len(latents))
                if latents is None:
                    errors.append(error)
                else:
                    file.write(latents.tobytes())
            file.flush()
            os.fsync(file.fileno())  # a file with a name but without its data is what a power cut leaves otherwise
        with write_atomically(folder / f"{name}.json") as temporary:
            temporary.write_text(json.dumps({"frames": frames, "errors": errors}))


def read_shards(
    folder: Path, names: Sequence[str], bounds: np.ndarray, frame_bytes: int
) -> tuple[np.ndarray, list[str]]:
    """Where each file's latents lie, and why some have none. No latents are read.

    Returns:
        (n, 3) int64: shard, first frame there, frames; and one line for each file that was left out.

    Raises:
        UserError: shards that are truncated or damaged, all of them named.
    """
    spans = np.zeros((int(bounds[-1]), 3), np.int64)
    errors: list[str] = []
    broken: list[str] = []
    for shard, name in enumerate(names):
        rows = spans[bounds[shard] : bounds[shard + 1]]
        try:
            about = json.loads((folder / f"{name}.json").read_bytes())
            frames = np.asarray(about["frames"], np.int64)
            size = os.stat(folder / f"{name}.f16").st_size
            whole_shard = frames.shape == (len(rows),) and frames.min() >= 0 and frames.sum() * frame_bytes == size
        except (OSError, ValueError, KeyError, TypeError):
            whole_shard = False
        if not whole_shard:
            broken.append(f"{name}.f16")
            continue
        rows[:, 0], rows[:, 1], rows[:, 2] = shard, np.cumsum(frames) - frames, frames
        errors += about["errors"]
    if broken:
        some = ", ".join(broken[:3]) + (", ..." if len(broken) > 3 else "")
        raise UserError(
            f"{folder}: truncated or damaged: {some} ({len(broken)} of {len(names)} shards); "
            "delete these and run again: only they are encoded anew"
        )
    return spans, errors


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write latents to {folder} ({describe_error(error)}); free some space or give another "
            "--data.cache_dir; shards that were finished stay and are not encoded again"
        ) from error


def file_facts(entries: Sequence[Entry]) -> np.ndarray:
    """(n, 2) int64: size in bytes and time of change in ns of each file; -1 of those that are not there."""
    facts = np.full((len(entries), 2), -1, np.int64)
    for index, entry in enumerate(entries):
        try:
            found = os.stat(entry.path)
        except OSError:
            continue
        facts[index] = found.st_size, found.st_mtime_ns
    return facts


def plan_shards(entries: Sequence[Entry], facts: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of the shards, and the index of the first entry of each, with len(entries) at the end.

    A name is a hash of the names, sizes and times of change of the shard's files, and of a few kilobytes from
    the middle of the first one: unpacked archives may agree in all the rest.
    """
    hashes = np.fromiter(
        (int.from_bytes(hashlib.blake2b(os.fsencode(entry.name), digest_size=8).digest(), "big") for entry in entries),
        np.uint64,
        len(entries),
    )
    starts = np.fromiter(_starts(hashes, facts[:, 0].clip(min=0), 0, SHARD_BITS), np.int64)
    bounds = np.append(starts, len(entries))
    names = [_name(entries[a:b], facts[a:b]) for a, b in pairwise(bounds)]
    return names, bounds


def _starts(hashes: np.ndarray, sizes: np.ndarray, offset: int, bits: int) -> Iterator[int]:
    """First indices of runs that each end with a hash of ``bits`` zero bits; too large ones are cut at fewer bits.

    A limit that counted bytes from the last cut would move all later cuts when one file grows.
    """
    ends = np.flatnonzero((hashes & np.uint64((1 << bits) - 1)) == 0) + 1
    cuts = np.unique(np.concatenate([[0], ends, [len(hashes)]]))
    for a, b in pairwise(cuts):
        if bits and b - a > 1 and sizes[a:b].sum() > SHARD_BYTES:
            yield from _starts(hashes[a:b], sizes[a:b], offset + int(a), bits - 1)
        else:
            yield offset + int(a)


def _name(entries: Sequence[Entry], facts: np.ndarray) -> str:
    digest = hashlib.sha256(facts.astype("<i8").tobytes())
    digest.update(os.fsencode("\n".join(entry.name for entry in entries)))
    digest.update(_sample(entries[0]))
    return digest.hexdigest()[:32]


def _sample(entry: Entry) -> bytes:
    try:
        with open(entry.path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size // 2 - SAMPLE_BYTES // 2))
            return file.read(SAMPLE_BYTES)
    except OSError:
        return b""
