"""Build the page and the options that Gradio launches it with."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from ddcm.app.jobs import Jobs
from ddcm.app.middleware import ContentSecurity
from ddcm.app.service import Service
from ddcm.app.sessions import Sessions
from ddcm.app.tabs import Tabs
from ddcm.app.theme import build_theme, render
from ddcm.runtime.files import resolve_shipped


def build_page(service: Service, sessions: Sessions) -> gr.Blocks:
    def end_session(request: gr.Request) -> None:
        sessions.end(request.session_hash or "")

    codebook = service.pipe.codebook
    atoms = "no codebook" if codebook is None else f"{codebook.quantizer.codebook_size} atoms"
    examples = sorted(resolve_shipped("examples").glob("*.flac"))
    with gr.Blocks(title="ddcm", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(render("masthead.html", facts=f"{Path(service.pipe.backbone.name).name} · {atoms}"))
        Tabs(service, Jobs(sessions), examples).build()
        page.unload(end_session)
    return page.queue(max_size=service.limits.max_waiting, api_open=False)


def launch_options(host: str, port: int, password: str | None, upload_bytes: int) -> dict[str, Any]:
    """Arguments of ``Blocks.launch``. Whatever sends data to other servers is off."""
    auth = None
    if password is not None:
        auth = lambda name, entered: hmac.compare_digest(entered.encode(), password.encode())  # noqa: E731
    return {
        "server_name": host, "server_port": port, "auth": auth, "auth_message": "Any name will do.",
        "max_file_size": upload_bytes, "app_kwargs": {"middleware": [Middleware(ContentSecurity)]},
        "theme": build_theme(), "css": render("style.css"), "footer_links": ["api"], "run_history": False,
        "enable_monitoring": False, "share": False, "ssr_mode": False, "pwa": False, "mcp_server": False,
        "quiet": True, "inbrowser": False, "show_error": False, "prevent_thread_lock": True,
    }  # fmt: skip
