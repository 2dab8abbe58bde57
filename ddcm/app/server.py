"""Serve the page on a port until Ctrl-C, and delete every visitor's files afterwards."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from ddcm.app.server_options import Limits, ServerOptions
from ddcm.app.service import Service
from ddcm.app.sessions import Sessions
from ddcm.errors import UserError
from ddcm.pipeline import DDCMPipeline

SWEEP_S = 60.0
HEARTBEAT_S = 3.0
"""How often Gradio checks whether a visitor's page is still open."""
LOCAL = ("127.0.0.1", "localhost", "::1")


@contextmanager
def run_server(pipe: DDCMPipeline, options: ServerOptions, limits: Limits) -> Iterator[str]:
    """Yields the address of the running page. On exit the server is closed and all its files are deleted.

    Raises:
        UserError: Gradio is missing, or the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="ddcm-serve-", ignore_cleanup_errors=True) as root:
        # Gradio reads these when it is imported.
        os.environ |= {
            "GRADIO_TEMP_DIR": root, "GRADIO_EXAMPLES_CACHE": root, "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_HEARTBEAT_INTERVAL": str(HEARTBEAT_S),
        }  # fmt: skip
        if find_spec("gradio") is None:
            raise UserError("the page needs Gradio: pip install 'ddcm[app]'")
        from ddcm.app.build import build_page, launch_options

        sessions = Sessions(Path(root))
        page = build_page(Service(pipe, limits), sessions)
        sessions.protect_existing()
        upload_bytes = int(limits.max_megabytes * 1e6)
        try:
            _, address, _ = page.launch(**launch_options(options.host, options.port, options.password, upload_bytes))
        except OSError as error:
            raise UserError(f"--port {options.port} on {options.host} cannot be opened; take another one") from error
        closed = threading.Event()
        sweeper = threading.Thread(target=_sweep, args=(sessions, limits.keep_minutes * 60, closed), daemon=True)
        sweeper.start()
        try:
            yield address
        finally:
            closed.set()
            sessions.end_all()
            page.close(verbose=False)
            sweeper.join()


def serve(load: Callable[[], DDCMPipeline], options: ServerOptions, limits: Limits) -> int:
    """Serve the page until SIGINT or SIGTERM; the exit code."""
    with _catch_signals() as signalled, run_server(load(), options, limits) as address:
        print(f"ddcm is on {address}  (Ctrl-C ends it)", flush=True)
        if options.host not in LOCAL and options.password is None:
            print("everyone who reaches this machine can use it; --password keeps it to some", flush=True)
        signalled.wait()
    return 0


@contextmanager
def _catch_signals() -> Iterator[threading.Event]:
    """Yields an event that SIGINT and SIGTERM set, so that files are deleted on either."""
    signalled = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: signalled.set()) for number in numbers]
    try:
        yield signalled
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _sweep(sessions: Sessions, keep_s: float, closed: threading.Event) -> None:
    while not closed.wait(min(SWEEP_S, keep_s)):
        sessions.delete_older(keep_s)
