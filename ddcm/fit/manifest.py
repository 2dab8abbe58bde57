"""Which files to fit on, and which of them are held back for validation."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

from ddcm.audio import find_audio
from ddcm.errors import UserError

SPLITS = ("train", "val", "test")
HELD_BACK = 10  # one file in ten is for validation where nobody said which


@dataclass(frozen=True)
class Entry:
    path: Path
    name: str
    """Relative to the root, with forward slashes: the same on every machine."""
    split: str = ""
    """One of SPLITS, or empty: to be decided by ``split_entries``."""


def read_manifest(root: str | Path) -> list[Entry]:
    """Entries of a folder of audio, or of a CSV with a column ``path`` and perhaps ``split``, sorted by name.

    Relative paths in a CSV are relative to the CSV.

    Raises:
        UserError: nothing there, no column ``path``, or an unknown split.
    """
    root = Path(root)
    if root.suffix.lower() == ".csv":
        entries = _read_csv(root)
    elif root.is_dir():
        entries = [Entry(path, name.as_posix()) for path, name in find_audio([root])]
    else:
        raise UserError(f"--data.root {root}: no such folder; give a folder of audio or a .csv with a column path")
    return sorted(entries, key=lambda entry: entry.name)


def _read_csv(path: Path) -> list[Entry]:
    if not path.is_file():
        raise UserError(f"--data.root {path}: no such file")
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if "path" not in (rows.fieldnames or ()):
            raise UserError(f"{path} has no column path")
        entries = [Entry(path.parent / row["path"], row["path"], row.get("split") or "") for row in rows]
    for line, entry in enumerate(entries, start=2):
        if entry.split not in ("", *SPLITS):
            raise UserError(f"{path}, line {line}: split {entry.split!r} is none of {', '.join(SPLITS)}")
    if not entries:
        raise UserError(f"{path} lists no files")
    return entries


def split_entries(entries: list[Entry]) -> dict[str, list[int]]:
    """Indices of the readable entries by split.

    An entry without a split goes by a hash of its name, so that it never moves when others come or go: one
    in ten to validation. Both of train and val get at least one file; a single file has to be both.
    """
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    undecided = []
    for index, entry in enumerate(entries):
        if entry.split:
            splits[entry.split].append(index)
        else:
            undecided.append((int(hashlib.sha256(entry.name.encode()).hexdigest(), 16), index))
    for digest, index in undecided:
        splits["val" if digest % HELD_BACK == 0 else "train"].append(index)
    for empty, other in (("val", "train"), ("train", "val")):
        if not splits[empty] and undecided:
            _, index = min(undecided)
            splits[empty] = [index]
            if len(splits[other]) > 1:
                splits[other].remove(index)
    for split in ("train", "val"):
        if not splits[split]:
            raise UserError(f"no readable file has the split {split}")
    return splits
