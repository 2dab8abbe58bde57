"""What a run over a folder did, file by file: ``manifest.csv`` in the output folder, over all processes and reruns.

Each process appends lines of its own to a file in the hidden folder ``.run``; ``merge`` makes the table of them.
Nothing is held open in common, so a process that is killed loses at most the line that it was writing.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from pathlib import Path
from typing import Any

from ddcm.runtime.files import write_atomically

PARTS, TABLE = ".run", "manifest.csv"
FIELDS = ("file", "output", "status", "seconds", "time_s", "verb", "settings", "notes", "finished")


class Record:
    """The lines of one process of a run into ``folder``."""

    def __init__(self, folder: Path, rank: int, verb: str, settings: dict[str, Any]):
        self.folder, self.since = folder, time.time()
        self._path = folder / PARTS / f"rank-{rank:04d}.jsonl"
        self._common = {"verb": verb, "settings": settings}
        self._held = b""  # of files that failed before there was a folder: a run of failures alone makes none

    def add(
        self, source: Path, target: Path, status: str, seconds: float | None, time_s: float, notes: Any, of: int
    ) -> None:
        """One of ``of`` files is done or has failed: ``status`` is ``written`` or what went wrong."""
        row: dict[str, Any] = {"file": str(source), "output": str(target.relative_to(self.folder)), "status": status}
        row |= {"seconds": seconds, "time_s": round(time_s, 3)} | self._common
        row |= {"notes": notes, "finished": time.time(), "of": of}
        self._held += json.dumps(row, default=str).encode() + b"\n"
        if not self.folder.is_dir():
            return
        self._path.parent.mkdir(exist_ok=True)
        with open(self._path, "ab", buffering=0) as file:
            torn = file.tell() and not _ends_a_line(self._path)  # what a killed process was writing
            file.write((b"\n" if torn else b"") + self._held)
        self._held = b""


def _ends_a_line(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def rows(folder: Path, since: float = 0.0) -> list[dict[str, Any]]:
    """The last row of every output, by name; those of later than ``since`` (seconds of the clock)."""
    last: dict[str, dict[str, Any]] = {}
    for part in sorted((folder / PARTS).glob("rank-*.jsonl")):
        for line in part.read_bytes().splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # torn by a kill
                continue
            before = last.get(row["output"])
            if before is None or before["finished"] <= row["finished"]:
                last[row["output"]] = row
    return [last[name] for name in sorted(last) if last[name]["finished"] >= since]


def merge(folder: Path) -> None:
    """``manifest.csv`` of all that was recorded so far; every process does this at its end, so the last one has all."""
    if not (folder / PARTS).is_dir():
        return
    with (
        _alone(folder / PARTS / "lock"),
        write_atomically(folder / TABLE) as temporary,
    ):  # read inside the lock: none is lost
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, FIELDS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows(folder):
            as_json = {key: json.dumps(row[key], default=str) if row[key] else "" for key in ("settings", "notes")}
            when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(row["finished"]))
            writer.writerow(row | as_json | {"finished": when})
        temporary.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape")  # names of any bytes


class _alone:
    """One process at a time, where the file system has locks; a process that ends gives its lock back."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> None:
        self._file = open(self._path, "w")
        try:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass

    def __exit__(self, *exception) -> None:
        self._file.close()
