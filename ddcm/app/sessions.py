"""Files and running work of each visitor. Both end with the session."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ddcm.runtime.files import list_files


class Sessions:
    """Sessions by the name that Gradio gives them; all their files are below ``root``.

    Whoever knows the path of a file can read it, so the folder of a result has a random name. An upload that two
    sessions share is one file; it is deleted with the last of them.
    """

    def __init__(self, root: Path):
        self.root = root
        self._protected: set[Path] = set()
        self._folders: dict[str, list[Path]] = defaultdict(list)
        self._uploads: dict[str, set[Path]] = defaultdict(set)
        self._stops: dict[str, set[threading.Event]] = defaultdict(set)
        self._lock = threading.Lock()

    def protect_existing(self) -> None:
        """Never delete the files that are below ``root`` now, such as the page's examples."""
        self._protected = set(list_files(self.root))

    def create_folder(self, session: str) -> Path:
        """A new folder for one result."""
        path = self.root / secrets.token_urlsafe(16)
        path.mkdir(mode=0o700)
        with self._lock:
            self._folders[session].append(path)
        return path

    def add_upload(self, session: str, upload: Path) -> None:
        if upload not in self._protected:
            with self._lock:
                self._uploads[session].add(upload)

    @contextmanager
    def track_work(self, session: str) -> Iterator[threading.Event]:
        """Yields an event that is set when the session ends and the work must stop."""
        stop = threading.Event()
        with self._lock:
            self._stops[session].add(stop)
        try:
            yield stop
        finally:
            with self._lock:
                self._stops[session].discard(stop)
                if not self._stops[session]:
                    del self._stops[session]

    def end(self, session: str) -> None:
        """Stop the work of the session and delete its files."""
        with self._lock:
            for stop in self._stops.pop(session, ()):
                stop.set()
            folders, uploads = self._folders.pop(session, []), self._uploads.pop(session, set())
            uploads -= set().union(*self._uploads.values())
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        for upload in uploads:
            upload.unlink(missing_ok=True)

    def end_all(self) -> None:
        with self._lock:
            sessions = {*self._stops, *self._folders, *self._uploads}
        for session in sessions:
            self.end(session)

    def delete_older(self, seconds: float) -> None:
        """Delete files that have not changed for ``seconds``: unused uploads, and sessions that never ended."""
        for path in list_files(self.root):
            with suppress(FileNotFoundError):  # a session ends meanwhile
                if path not in self._protected and time.time() - path.stat().st_mtime > seconds:
                    path.unlink()
