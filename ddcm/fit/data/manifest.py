"""The files of a collection, and their split into training, validation and test."""

import csv
import hashlib
import os
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ddcm.audio.search import find_audio
from ddcm.errors import UserError, describe_error

SPLITS = ("train", "val", "test")
MAX_LINE = 1 << 20  # characters of a line in a CSV
VALIDATION_SHARE = 10  # one file in ten, if the manifest has no splits


@dataclass(frozen=True)
class Entry:
    path: Path
    name: str  # Relative to the root, with forward slashes: the same on every machine.
    split: str = ""  # One of SPLITS, or empty: ``split_entries`` chooses one.


def read_manifest(root: str | Path) -> list[Entry]:
    """Read a folder of audio, or a CSV with a column ``path`` and perhaps ``split``; return entries sorted by name.
    Relative paths in a CSV start at its folder. Raises UserError: no such file or folder, no column ``path``, or a row
    without a path, with an unknown split, or with the path of an earlier row."""
    root = Path(root)
    if root.suffix.lower() == ".csv" and not root.is_dir():
        entries = _read_csv(root)
    elif root.is_dir():
        entries = [Entry(path, name.as_posix()) for path, name in find_audio([root])]
        firsts = {_identify(entry.path): entry for entry in sorted(entries, key=lambda entry: entry.name, reverse=True)}
        entries = list(firsts.values())  # a link to a file of the folder would be in train and in val
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
        file = _identify(path.parent / name)
        if file in seen:  # once in train and once in val would train on validation data
            raise UserError(f"{path}, line {line}: {name} is also on line {seen[file]}")
        seen[file] = line
        entries.append(Entry(path.parent / name, name, split))
    if not entries:
        raise UserError(f"{path} lists no files")
    return entries


def _identify(path: Path) -> str:
    """The same text for every spelling of a file's path: links, ``..``, absolute, of other case where that is alike."""
    real = os.path.normcase(os.path.realpath(path))
    alike = unicodedata.normalize("NFC", real.casefold())
    other = os.path.join(os.path.dirname(real), os.path.basename(alike))
    with suppress(OSError):
        return alike if os.path.samefile(real, other) else real
    return real if os.path.exists(real) else unicodedata.normalize("NFC", real)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV with a column ``path``, each with the number of its last line."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
            rows = csv.DictReader(_lines(file))
            if "path" not in (rows.fieldnames or ()):
                raise UserError(f"{path} has no column path")
            for row in rows:
                if None in row:
                    raise UserError(f"{path}, line {rows.line_num}: more cells than columns; quote a path with a comma")
                yield rows.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV in UTF-8 ({error})") from error
    except OSError as error:
        raise UserError(f"--data.root {path}: {describe_error(error)}") from error


def _lines(file: TextIO) -> Iterator[str]:
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise csv.Error(f"a line of more than {MAX_LINE} characters")
        yield line


def split_entries(entries: Sequence[Entry]) -> dict[str, list[int]]:
    """Indices of the readable entries by split. The split of an entry without one follows from a hash of its name, so
    it does not depend on the other entries: one in ten goes to validation. Both train and val get at least one file; a
    single file is in both. Raises UserError: every entry has a split, and none is train or none is val."""
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    unassigned = []
    for index, entry in enumerate(entries):
        if entry.split:
            splits[entry.split].append(index)
        else:
            unassigned.append((int(hashlib.sha256(os.fsencode(entry.name)).hexdigest(), 16), index))
    for digest, index in unassigned:
        splits["val" if digest % VALIDATION_SHARE == 0 else "train"].append(index)
    for empty, other in (("val", "train"), ("train", "val")):
        if not splits[empty] and unassigned:
            _, index = min(unassigned)
            splits[empty] = [index]
            if len(splits[other]) > 1:
                splits[other].remove(index)
    for split in ("train", "val"):
        if not splits[split]:
            raise UserError(f"no readable file has the split {split}")
    return splits
