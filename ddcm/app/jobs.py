"""From a request of the page to work in the one thread that computes: progress, cancelling, errors in one line."""

from __future__ import annotations

import asyncio
import contextvars
import html
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from ddcm.app.sessions import Visits
from ddcm.errors import UserError
from ddcm.pipeline.denoise import OnStep

Work = Callable[[Path, OnStep], Any]
"""``work(folder, on_step)``: writes into the folder, calls ``on_step`` often."""
ONE_AT_A_TIME = {"concurrency_id": "work", "concurrency_limit": 1}
"""Of every event that computes: the rest waits in the queue, which tells each visitor its place."""


class Stopped(Exception):
    """Raised out of ``on_step``: nobody waits for the result any more."""


class Desk:
    """Takes requests for work. All of it is done in one thread: a model has one set of weights, and a codec must
    compute in the same way each time."""

    def __init__(self, visits: Visits):
        self.visits = visits
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ddcm")

    async def do_with(self, request: gr.Request, progress: gr.Progress, source: str | None, work: Work) -> Any:
        """``do`` on what the visitor brought."""
        if source is None:
            raise told("bring a file first: upload or record one")
        self.visits.brought(request.session_hash or "", Path(source))
        return await self.do(request, progress, work, source)

    async def do(self, request: gr.Request, progress: gr.Progress, work: Work, source: str | None = None) -> Any:
        """What the work returns. If the request is cancelled the work stops at its next step, and this waits for it.

        Raises:
            gr.Error: one line for the visitor; files are called by their own names.
        """
        visit = request.session_hash or ""
        with self.visits.working(visit) as stop:
            folder = self.visits.folder(visit)

            def on_step(done: int, total: int) -> None:
                if stop.is_set():
                    raise Stopped
                progress((done, total), desc="Finishing" if done == total else "Working", unit="steps")

            progress(0, desc="Starting")
            context = contextvars.copy_context()  # Gradio knows by it whose progress this is
            task = asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: context.run(_in_one_line, source, work, folder, on_step)
            )
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                stop.set()
                await asyncio.wait([task])
                task.exception()  # seen: it is Stopped, or came too late to matter
                raise


def _in_one_line(source: str | None, work: Work, folder: Path, on_step: OnStep) -> Any:
    try:
        return work(folder, on_step)
    except UserError as error:
        line = str(error)
    except Stopped:
        line = "stopped"
    except torch.OutOfMemoryError:
        line = "out of memory; give a shorter recording"
    except OSError as error:
        line = f"the server cannot write its files ({(error.strerror or 'error').lower()})"
    if source is not None:
        line = line.replace(source, Path(source).name)
    raise told(line)


def told(line: str) -> gr.Error:
    """What the visitor reads; the page shows it as HTML."""
    return gr.Error(html.escape(line, quote=False), title="That did not work", print_exception=False)


def sends_itself(component: gr.Audio | gr.File) -> None:
    """What a visitor gives the component is a file; an address is not fetched: the server asks nobody.

    (A subclass would say it better, but Gradio writes a file beside the source of every one.)
    """
    move = component.async_move_resource_to_block_cache

    async def checked(name: str | Path | None) -> str | None:
        if str(name).lower().startswith(("http:", "https:")):
            raise told("send the file itself; addresses are not fetched")
        return await move(name)

    component.async_move_resource_to_block_cache = checked
