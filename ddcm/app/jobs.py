"""Run the work of requests in one thread, with progress, cancellation and errors of one line."""

import asyncio
import contextvars
import html
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from ddcm.app.sessions import Sessions
from ddcm.errors import UserError

ONE_AT_A_TIME = {"concurrency_id": "work", "concurrency_limit": 1}
"""Options of every event that computes. Further requests wait in Gradio's queue, which shows their position."""
UPLOADS = ("audio", "file")  # Inputs that are uploaded files.


class Cancelled(Exception):
    """Raised by ``on_step`` when the visitor cancelled or left."""


class Jobs:
    """Runs requests one after the other in one thread: the model has one set of weights, and a codec must compute in
    the same way each time."""

    def __init__(self, sessions: Sessions):
        self.sessions = sessions
        self._previews: dict[str, tuple[int, bytes]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ddcm")

    def take_preview(self, session: str) -> tuple[int, bytes] | None:
        """The step and the picture of the latest preview, once."""
        return self._previews.pop(session, None)

    async def run(
        self, request: gr.Request, progress: gr.Progress, work: Callable[..., Any], inputs: dict[str, Any],
        previews: bool = False,
    ) -> Any:  # fmt: skip
        """The result of ``work(folder, on_step, **inputs)``, which writes its files into ``folder`` and calls
        ``on_step`` after each step; with ``previews`` it has an argument ``show``. A cancelled request stops at its
        next step. Raises gr.Error: one line for the visitor, with file names in place of paths."""
        session = request.session_hash or ""
        for name in inputs.keys() & UPLOADS:
            if inputs[name] is None:
                raise error_message("bring a file first: upload or record one")
            inputs[name] = Path(inputs[name])
            self.sessions.add_upload(session, inputs[name])
        with self.sessions.track_work(session) as (folder, stop):

            def on_step(done: int, total: int) -> None:
                if stop.is_set():
                    raise Cancelled
                progress((done, total), desc="Finishing" if done == total else "Working", unit="steps")

            def show(step: int, picture: bytes) -> None:
                self._previews[session] = step, picture

            def run_with_one_line_errors() -> Any:
                try:
                    return work(folder, on_step, **inputs, **{"show": show} if previews else {})
                except (UserError, Cancelled, torch.OutOfMemoryError, OSError) as error:
                    paths = [value for value in inputs.values() if isinstance(value, Path)]
                    raise error_message(describe_to_visitor(error, paths)) from None
                finally:
                    self._previews.pop(session, None)

            progress(0, desc="Starting")
            context = contextvars.copy_context()  # Gradio finds the request's progress bar by it
            task = asyncio.get_running_loop().run_in_executor(self._thread, context.run, run_with_one_line_errors)
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                stop.set()
                await asyncio.wait([task])
                task.exception()  # mark it as retrieved: nobody waits for the result
                raise


def describe_to_visitor(error: Exception, paths: Iterable[Path]) -> str:
    """One line for somebody who has no command line: file names in place of ``paths``, no advice that names flags or
    commands, and names of settings in place of flags."""
    if isinstance(error, Cancelled):
        return "stopped"
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory; give a shorter recording"
    if isinstance(error, OSError):
        return f"the server cannot write its files ({(error.strerror or 'error').lower()})"
    line = str(error)
    for path in paths:
        line = line.replace(str(path), path.name)
    first, *others = re.split(r"(?<=[:;]) ", re.sub(r" \([^()]*\bddcm [^()]*\)", "", line))
    kept = [first, *(clause for clause in others if not re.search(r"--\w|\bddcm \w|pip install", clause))]
    return re.sub(r"--(\w+)", lambda flag: flag[1].replace("_", " "), " ".join(kept).rstrip(":; "))


def error_message(line: str) -> gr.Error:
    """An error that the page shows, as HTML, to the visitor."""
    return gr.Error(html.escape(line, quote=False), title="That did not work", print_exception=False)
