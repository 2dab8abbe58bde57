"""Measurements as rows of a JSON file that is whole after every row, and the time that is left for more."""

import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddcm.runtime.files import write_atomically


class OutOfTime(BaseException):
    """Raised in the middle of work when its time is over. Not an ``Exception``: no library catches it."""


class Record:
    """Rows by part. A row that is there without an error is not measured again, so a run can be resumed.

    Args:
        path: of the JSON file; read where it exists.
        minutes: from now until the last part ends.
    """

    def __init__(self, path: Path, minutes: float):
        self.path, self.begin, self.total_s = path, time.monotonic(), 60 * minutes
        self.data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"parts": {}}

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.begin

    def rows(self, part: str) -> list[dict[str, Any]]:
        return self.data["parts"].setdefault(part, {"rows": [], "notes": []})["rows"]

    def note(self, part: str, text: str) -> None:
        """Keep a line about a part: why it was skipped, or where it ended."""
        self.rows(part)
        notes = self.data["parts"][part]["notes"]
        if text not in notes:
            notes.append(text)
        print(f"{part}: {text}", flush=True)
        self.save()

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(self.path) as temporary:
            temporary.write_text(json.dumps(self.data, indent=1) + "\n")

    def find(self, part: str, **key: Any) -> dict[str, Any] | None:
        """The row of this key that has no error."""
        rows = (row for row in self.rows(part) if "error" not in row)
        return next((row for row in rows if key.items() <= row.items()), None)

    def measure(self, part: str, work: Callable[[], dict[str, Any]], **key: Any) -> None:
        """Add the row ``key`` and what ``work`` returns, or its error. One failure does not end the run."""
        if self.find(part, **key) is not None:
            return
        begin = time.monotonic()
        try:
            row = key | work()
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            message = (str(error).strip().splitlines() or [""])[0]
            row = key | {"error": f"{type(error).__name__}: {message}"[:300]}
        rows = self.rows(part)
        rows[:] = [other for other in rows if not key.items() <= other.items()] + [row]
        took = time.monotonic() - begin
        print(f"[{self.elapsed_s:5.0f} s, {took:5.1f} s] {part}: {json.dumps(row)}", flush=True)
        self.save()

    def run(self, part: str, work: Callable[[], object], until: float) -> None:
        """Run a part; what is not done when the share ``until`` of the whole time has passed is left out."""
        left = until * self.total_s - self.elapsed_s
        if left <= 0:
            self.note(part, "no time left")
            return
        begin = time.monotonic()
        try:
            with interrupt_after(left):
                work()
        except OutOfTime:
            self.note(part, f"stopped after {time.monotonic() - begin:.0f} s, when its time was over")
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self.note(part, f"failed: {type(error).__name__}: {error}"[:300])
        print(f"[{self.elapsed_s:5.0f} s] {part} took {time.monotonic() - begin:.0f} s", flush=True)


@contextmanager
def interrupt_after(seconds: float) -> Iterator[None]:
    """Raise ``OutOfTime`` inside the block after so many seconds. For the main thread."""

    def stop(*_) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
