"""Files and running work of each visitor. Both end with the session."""

import secrets
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock

from ddcm.runtime.files import list_files


@dataclass(frozen=True)
class Session:
    folders: list[Path] = field(default_factory=list)  # Of results.
    uploads: set[Path] = field(default_factory=set)
    stops: set[Event] = field(default_factory=set)  # One for each running work.


class Sessions:
    """Sessions by the name that Gradio gives them; all their files are below ``root``. Whoever knows the path of a file
    can read it, so the folder of a result has a random name. An upload that two sessions share is one file; it is
    deleted with the last of them."""

    def __init__(self, root: Path):
        self.root = root
        self._protected: set[Path] = set()
        self._sessions: dict[str, Session] = defaultdict(Session)
        self._lock = Lock()

    def protect_existing(self) -> None:
        """Never delete the files that are below ``root`` now, such as the page's examples."""
        self._protected = set(list_files(self.root))

    def add_upload(self, session: str, upload: Path) -> None:
        if upload not in self._protected:
            with self._lock:
                self._sessions[session].uploads.add(upload)

    @contextmanager
    def track_work(self, session: str) -> Iterator[tuple[Path, Event]]:
        """Yields a new folder for results, and an event that is set when the session ends and the work must stop."""
        stop, folder = Event(), self.root / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        with self._lock:
            stops = self._sessions[session].stops
            stops.add(stop)
            self._sessions[session].folders.append(folder)
        try:
            yield folder, stop
        finally:
            with self._lock:
                stops.discard(stop)

    def end(self, session: str) -> None:
        """Stop the work of the session and delete its files."""
        with self._lock:
            ended = self._sessions.pop(session, Session())
            for stop in ended.stops:
                stop.set()
            uploads = ended.uploads.difference(*(other.uploads for other in self._sessions.values()))
        for folder in ended.folders:
            shutil.rmtree(folder, ignore_errors=True)
        for upload in uploads:
            upload.unlink(missing_ok=True)

    def end_all(self) -> None:
        with self._lock:
            names = [*self._sessions]
        for name in names:
            self.end(name)

    def delete_older(self, seconds: float) -> None:
        """Delete files that have not changed for ``seconds``: unused uploads, and sessions that never ended."""
        for path in list_files(self.root):
            with suppress(FileNotFoundError):  # a session ends meanwhile
                if path not in self._protected and time.time() - path.stat().st_mtime > seconds:
                    path.unlink()
