"""The log of a run over a folder, a row for each file: ``manifest.csv`` in the output folder, over all reruns.

Each process appends rows to a file of its own in the hidden folder ``.run``; ``write_table`` makes the table of them.
Processes share no open file, so a process that is killed loses at most the row that it was writing.
"""

import csv
import json
import time
from pathlib import Path
from typing import Any

from filelock import FileLock
from jsonargparse import Namespace

from ddcm.cli.outputs import SUFFIXES
from ddcm.runtime.files import write_atomically
from ddcm.runtime.ranks import read_launched_rank

PARTS, TABLE = ".run", "manifest.csv"
NOT_LOGGED = ("inputs", "out", "overwrite")
FIELDS = ("file", "output", "status", "seconds", "time_s", "verb", "settings", "notes", "finished")


class RunLog:
    """The rows of one process of a run into ``folder``."""

    def __init__(self, folder: Path, rank: int, verb: str, settings: dict[str, Any]):
        self.folder, self.since = folder, time.time()
        self._path = folder / PARTS / f"rank-{rank:04d}.jsonl"
        self._common = {"verb": verb, "settings": settings}
        self._unwritten = b""  # rows from before the folder exists: a run of failures alone makes none

    def add(
        self, source: Path, target: Path, status: str, seconds: float | None, time_s: float, info: Any, total: int
    ) -> None:
        """One of ``total`` files is done or has failed: ``status`` is ``written`` or the error."""
        row: dict[str, Any] = {"file": str(source), "output": str(target.relative_to(self.folder)), "status": status}
        row |= {"seconds": seconds, "time_s": round(time_s, 3)} | self._common
        row |= {"notes": info, "finished": time.time(), "of": total}
        self._unwritten += json.dumps(row, default=str).encode() + b"\n"
        if not self.folder.is_dir():
            return
        self._path.parent.mkdir(exist_ok=True)
        with open(self._path, "a+b", buffering=0) as file:
            file.seek(max(0, file.tell() - 1))
            torn = file.read(1) not in (b"", b"\n")  # a killed process was writing
            file.write((b"\n" if torn else b"") + self._unwritten)
        self._unwritten = b""


def open_run_log(verb: str, arguments: Namespace) -> RunLog | None:
    """The log of this process in the folder OUT, with the flags that are set; None if OUT is a file."""
    out = Path(arguments.out)
    if out.suffix.lower() in SUFFIXES[verb]:
        return None
    settings = {key: value for key, value in vars(arguments).items() if value is not None}
    return RunLog(out, read_launched_rank()[0], verb, {key: settings[key] for key in settings if key not in NOT_LOGGED})


def read_rows(folder: Path, since: float = 0.0) -> list[dict[str, Any]]:
    """The last row of every output, by name, if it is later than ``since`` (seconds of the clock)."""
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


def write_table(folder: Path) -> None:
    """Write ``manifest.csv`` with all rows so far. Every process does this at its end, so the last one has all rows."""
    if not (folder / PARTS).is_dir():
        return
    with (
        FileLock(folder / PARTS / "lock"),
        write_atomically(folder / TABLE) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,  # names of any bytes
    ):
        writer = csv.DictWriter(file, FIELDS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in read_rows(folder):  # inside the lock, so that none is lost
            as_json = {key: json.dumps(row[key], default=str) if row[key] else "" for key in ("settings", "notes")}
            when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(row["finished"]))
            writer.writerow(row | as_json | {"finished": when})
