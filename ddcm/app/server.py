"""The page on a port, from before the first visitor until nothing of any visitor is left."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ddcm.app.service import Limits, Studio
from ddcm.app.sessions import Visits
from ddcm.errors import UserError
from ddcm.pipeline import DDCMPipeline

SWEEP_S = 60.0
NOTICED_S = 3.0
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Door:
    """Where the page is found."""

    host: str = "127.0.0.1"
    port: int = 7860
    password: str | None = None

    def __post_init__(self):
        if not 0 < self.port < 65536:
            raise UserError(f"--port {self.port} is outside [1, 65535]")
        if self.password == "":
            raise UserError("--password is empty; leave it out to let everybody in")


@contextmanager
def serving(pipe: DDCMPipeline, door: Door, limits: Limits) -> Iterator[str]:
    """Yields the address of a running page. Afterwards it is closed and every file that it held is gone.

    Raises:
        UserError: Gradio is missing, or the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="ddcm-serve-", ignore_cleanup_errors=True) as root:
        # Gradio reads from the environment where files go, that nobody is to be told of anything, and how soon it
        # is to notice that a visitor has left.
        os.environ |= {
            "GRADIO_TEMP_DIR": root, "GRADIO_EXAMPLES_CACHE": root, "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_HEARTBEAT_INTERVAL": str(NOTICED_S),
        }  # fmt: skip
        if find_spec("gradio") is None:
            raise UserError("the page needs Gradio: pip install 'ddcm[app]'")
        from ddcm.app.build import options, page

        visits = Visits(Path(root))
        demo = page(Studio(pipe, limits), visits)
        visits.keep_what_is_there()
        try:
            _, address, _ = demo.launch(
                **options(door.host, door.port, door.password, int(limits.max_megabytes * 1e6))
            )  # fmt: skip
        except OSError as error:
            raise UserError(f"--port {door.port} on {door.host} cannot be opened; take another one") from error
        over = threading.Event()
        sweeper = threading.Thread(target=_sweep, args=(visits, limits.keep_minutes * 60, over), daemon=True)
        sweeper.start()
        try:
            yield address
        finally:
            over.set()
            visits.end_all()
            demo.close(verbose=False)
            sweeper.join()


def serve(load: Callable[[], DDCMPipeline], door: Door, limits: Limits) -> int:
    """Until Ctrl-C, or a polite kill."""
    with _asked_to_end() as ended, serving(load(), door, limits) as address:
        print(f"ddcm is on {address}  (Ctrl-C ends it)", flush=True)
        if door.host not in LOCAL and door.password is None:
            print("everyone who reaches this machine can use it; --password keeps it to some", flush=True)
        ended.wait()
    return 0


@contextmanager
def _asked_to_end() -> Iterator[threading.Event]:
    """Yields what Ctrl-C and a polite kill set, so that files are deleted on either."""
    ended = threading.Event()
    polite = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: ended.set()) for number in polite]
    try:
        yield ended
    finally:
        for number, handler in zip(polite, before, strict=True):
            signal.signal(number, handler)


def _sweep(visits: Visits, older_than_s: float, over: threading.Event) -> None:
    while not over.wait(min(SWEEP_S, older_than_s)):
        visits.sweep(older_than_s)
