"""Which files share a shard of the cache, and what that shard is called. No audio is read here but a few samples.

Both follow from the files alone, so that a file which is added, changed or removed concerns its own shard only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from ddcm.fit.data.manifest import Entry

SHARD_BITS = 6  # a shard ends after a name whose hash ends in 6 zero bits: 64 files on average
SHARD_BYTES = 32 << 20  # of audio on disk; runs above it are cut further. A killed encoding loses one shard at most
SAMPLE_BYTES = 4096


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
