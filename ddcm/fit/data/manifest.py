"""Which files to fit on, and which of them are held back for validation."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ddcm.audio.files import find_audio
from ddcm.errors import UserError, describe_error

SPLITS = ("train", "val", "test")
LINE = 1 << 20  # characters; a hostile one has no end
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
        UserError: nothing there, no column ``path``, a row without a path, with an unknown split or a second time.
    """
    root = Path(root)
    if root.suffix.lower() == ".csv" and not root.is_dir():
        entries = _read_csv(root)
    elif root.is_dir():
        entries = [Entry(path, name.as_posix()) for path, name in find_audio([root])]
    else:
        raise UserError(f"--data.root {root}: no such folder; give a folder of audio or a .csv with a column path")
    return sorted(entries, key=lambda entry: entry.name)


def _read_csv(path: Path) -> list[Entry]:
    if not path.is_file():
        raise UserError(f"--data.root {path}: no such file")
    entries: list[Entry] = []
    seen: dict[str, int] = {}
    for line, row in _rows(path):
        name, split = (row["path"] or "").strip(), (row.get("split") or "").strip()
        if not name or "\0" in name:
            raise UserError(f"{path}, line {line}: no path")
        if split not in ("", *SPLITS):
            raise UserError(f"{path}, line {line}: split {split!r} is none of {', '.join(SPLITS)}")
        if name in seen:  # once in train and once in val would make validation a lie
            raise UserError(f"{path}, line {line}: {name} is also on line {seen[name]}")
        seen[name] = line
        entries.append(Entry(path.parent / name, name, split))
    if not entries:
        raise UserError(f"{path} lists no files")
    return entries


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV with a column ``path``, each with the line that it ends on."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
            rows = csv.DictReader(_lines(file))
            if "path" not in (rows.fieldnames or ()):
                raise UserError(f"{path} has no column path")
            for row in rows:
                if None in row:
                    raise UserError(
                        f"{path}, line {rows.line_num}: more cells than columns; quote a path that has a comma in it"
                    )
                yield rows.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV in UTF-8 ({error})") from error
    except OSError as error:
        raise UserError(f"--data.root {path}: {describe_error(error)}") from error


def _lines(file: TextIO) -> Iterator[str]:
    while line := file.readline(LINE):
        if len(line) == LINE:
            raise csv.Error(f"a line of more than {LINE} characters")
        yield line


def split_entries(entries: Sequence[Entry]) -> dict[str, list[int]]:
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
            undecided.append((int(hashlib.sha256(os.fsencode(entry.name)).hexdigest(), 16), index))
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
