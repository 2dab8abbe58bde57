"""The whole page, and how Gradio is to run it."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from ddcm.app.jobs import Desk
from ddcm.app.middleware import Guard
from ddcm.app.service import Studio
from ddcm.app.sessions import Visits
from ddcm.app.tabs import Tabs
from ddcm.app.theme import STYLE, masthead, theme
from ddcm.runtime.files import shipped


def page(studio: Studio, visits: Visits) -> gr.Blocks:
    def left(request: gr.Request) -> None:
        visits.end(request.session_hash or "")

    codebook = studio.pipe.codebook
    fitted = "no codebook" if codebook is None else f"{codebook.quantizer.codebook_size} atoms"
    examples = sorted(shipped("examples").glob("*.flac"))
    with gr.Blocks(title="ddcm", analytics_enabled=False, fill_width=True) as demo:
        gr.HTML(masthead(f"{Path(studio.pipe.backbone.name).name} · {fitted}"))
        Tabs(studio, Desk(visits), examples).build()
        demo.unload(left)
    return demo.queue(max_size=studio.limits.max_waiting, api_open=False)


def options(host: str, port: int, password: str | None, upload_bytes: int) -> dict[str, Any]:
    """For ``launch``: what is not needed is off, above all what would tell or show somebody else something."""
    auth = None
    if password is not None:
        auth = lambda name, given: hmac.compare_digest(given.encode(), password.encode())  # noqa: E731
    return {
        "server_name": host, "server_port": port, "auth": auth, "auth_message": "Any name will do.",
        "max_file_size": upload_bytes, "app_kwargs": {"middleware": [Middleware(Guard)]},
        "theme": theme(), "css": STYLE, "footer_links": ["api"], "run_history": False, "enable_monitoring": False,
        "share": False, "ssr_mode": False, "pwa": False, "mcp_server": False, "quiet": True, "inbrowser": False,
        "show_error": False, "prevent_thread_lock": True,
    }  # fmt: skip
