"""What belongs to each visitor: files, and work under way. It all goes when the visit ends."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ddcm.runtime.files import files_under


class Visits:
    """Visitors by the name that their page has on the server; files of all of them are under ``root``.

    A file is found by whoever knows its path and by nobody else, so the folder of a result has a name that cannot be
    guessed. An upload that two visitors have brought is one file: it goes with the last of them.
    """

    def __init__(self, root: Path):
        self.root = root
        self._ours: set[Path] = set()
        self._folders: dict[str, list[Path]] = defaultdict(list)
        self._uploads: dict[str, set[Path]] = defaultdict(set)
        self._stops: dict[str, set[threading.Event]] = defaultdict(set)
        self._lock = threading.Lock()

    def keep_what_is_there(self) -> None:
        """Files of the page itself, such as its examples, are nobody's."""
        self._ours = set(files_under(self.root))

    def folder(self, visit: str) -> Path:
        """A new folder for one result."""
        path = self.root / secrets.token_urlsafe(16)
        path.mkdir(mode=0o700)
        with self._lock:
            self._folders[visit].append(path)
        return path

    def brought(self, visit: str, upload: Path) -> None:
        if upload not in self._ours:
            with self._lock:
                self._uploads[visit].add(upload)

    @contextmanager
    def working(self, visit: str) -> Iterator[threading.Event]:
        """Yields what is set when the work is to stop because the visitor left."""
        stop = threading.Event()
        with self._lock:
            self._stops[visit].add(stop)
        try:
            yield stop
        finally:
            with self._lock:
                self._stops[visit].discard(stop)
                if not self._stops[visit]:
                    del self._stops[visit]

    def end(self, visit: str) -> None:
        """Stop the visitor's work and delete the visitor's files."""
        with self._lock:
            for stop in self._stops.pop(visit, ()):
                stop.set()
            folders, uploads = self._folders.pop(visit, []), self._uploads.pop(visit, set())
            uploads -= set().union(*self._uploads.values())
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        for upload in uploads:
            upload.unlink(missing_ok=True)

    def end_all(self) -> None:
        with self._lock:
            visits = {*self._stops, *self._folders, *self._uploads}
        for visit in visits:
            self.end(visit)

    def sweep(self, older_than_s: float) -> None:
        """Delete what has not changed for so long, whoever's it is: uploads that were never used, visits that
        were never ended."""
        for path in files_under(self.root):
            with suppress(FileNotFoundError):  # somebody leaves meanwhile
                if path not in self._ours and time.time() - path.stat().st_mtime > older_than_s:
                    path.unlink()
