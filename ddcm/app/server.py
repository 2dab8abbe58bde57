"""Serve the page on a port until Ctrl-C, and delete every visitor's files afterwards."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from ddcm.app.server_options import Limits, ServerOptions
from ddcm.app.service import Service
from ddcm.app.sessions import Sessions
from ddcm.errors import UserError
from ddcm.pipeline import DDCMPipeline
from ddcm.runtime.exit import Terminated

SWEEP_S = 60.0
HEARTBEAT_S = 3.0  # How often Gradio checks whether a visitor's page is still open.
LOCAL = ("127.0.0.1", "localhost", "::1")


@contextmanager
def run_server(pipe: DDCMPipeline, options: ServerOptions, limits: Limits) -> Iterator[str]:
    """Yields the address of the running page. On exit the server is closed and all its files are deleted. Raises
    UserError: Gradio is missing, or the port is taken."""
    with tempfile.TemporaryDirectory(prefix="ddcm-serve-", ignore_cleanup_errors=True) as root:
        # Gradio reads these when it is imported.
        os.environ |= {
            "GRADIO_TEMP_DIR": root, "GRADIO_EXAMPLES_CACHE": root, "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_HEARTBEAT_INTERVAL": str(HEARTBEAT_S),
        }  # fmt: skip
        if find_spec("gradio") is None:
            raise UserError("the page needs Gradio: pip install 'ddcm[app]'")
        from ddcm.app.launch import launch_options
        from ddcm.app.page import build_page

        sessions = Sessions(Path(root))
        service = Service(pipe, limits)
        service.warm_up()
        page = build_page(service, sessions)
        sessions.protect_existing()
        try:
            _, address, _ = page.launch(**launch_options(options, limits))
        except OSError as error:
            raise UserError(f"--port {options.port} on {options.host} cannot be opened; take another one") from error
        closed, keep_s = threading.Event(), limits.keep_minutes * 60

        def sweep() -> None:
            while not closed.wait(min(SWEEP_S, keep_s)):
                sessions.delete_older(keep_s)

        sweeper = threading.Thread(target=sweep, daemon=True)
        sweeper.start()
        try:
            yield address
        finally:
            closed.set()
            sessions.end_all()
            page.close(verbose=False)
            sweeper.join()


def serve(load: Callable[[], DDCMPipeline], options: ServerOptions, limits: Limits) -> int:
    """Serve the page until Ctrl-C, or until SIGTERM raises ``Terminated``; the exit code."""
    with suppress(KeyboardInterrupt, Terminated), run_server(load(), options, limits) as address:
        print(f"ddcm is on {address}  (Ctrl-C ends it)", flush=True)
        if options.host not in LOCAL and options.password is None:
            print("everyone who reaches this machine can use it; --password keeps it to some", flush=True)
        threading.Event().wait()
    return 0
