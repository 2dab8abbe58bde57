"""Options that Gradio launches the page with: theme, password, and isolation from other servers."""

import hmac
from typing import Any

import gradio as gr
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from ddcm.app.page import render
from ddcm.app.server_options import Limits, ServerOptions

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; frame-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""``unsafe-eval`` is for Gradio, which compiles its templates in the browser."""
HEADERS = {"content-security-policy": POLICY, "referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}
TITLE = b"<title>ddcm</title>"
SANS = ("ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")  # Fonts of the visitor's system.


class ContentSecurity:
    """ASGI middleware: adds ``HEADERS`` to every response; refuses paths that Gradio would fetch from elsewhere; titles
    the page, which Gradio does only after the login."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path, held = scope["path"].lower(), list[dict[str, Any]]()

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
                if path == "/":  # its length follows from its body
                    return held.append(message)
            while held:
                message, start = _add_title(message, held.pop())
                await send(start)
            await send(message)

        if "file=http" in path or "proxy=" in path:
            return await PlainTextResponse("not served here", 403)(scope, receive, send)
        return await self.app(scope, receive, send_with_headers)


def _add_title(body: dict[str, Any], start: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two messages of a response with a title in its head, if it has one."""
    headers, content = MutableHeaders(raw=list(start["headers"])), body.get("body", b"")
    titled = content.replace(b"<head>", b"<head>" + TITLE, 1)
    if "content-length" in headers:
        headers["content-length"] = str(int(headers["content-length"]) + len(titled) - len(content))
    return body | {"body": titled}, start | {"headers": headers.raw}


def launch_options(options: ServerOptions, limits: Limits) -> dict[str, Any]:
    """Arguments of ``Blocks.launch``. Whatever sends data to other servers is off."""
    auth, password = None, options.password
    if password is not None:
        auth = lambda name, entered: hmac.compare_digest(entered.encode(), password.encode())  # noqa: E731
    theme = gr.themes.Base(
        primary_hue="indigo", neutral_hue="slate", radius_size="lg", font=[gr.themes.Font(name) for name in SANS],
        font_mono=[gr.themes.Font(name) for name in MONO],
    ).set(
        body_background_fill="*neutral_50", body_background_fill_dark="*neutral_950",
        block_shadow="0 1px 2px 0 rgb(15 23 42 / 0.05)", block_border_width="1px",
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white", slider_color="*primary_600", color_accent="*primary_600",
        body_text_color_subdued="*neutral_600", input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_400",
    )  # fmt: skip
    return {
        "server_name": options.host, "server_port": options.port, "auth": auth, "auth_message": "Any name will do.",
        "max_file_size": int(limits.max_megabytes * 1e6), "app_kwargs": {"middleware": [Middleware(ContentSecurity)]},
        "theme": theme, "css": render("style.css"), "head": f"<script>{render('page.js')}</script>",
        "footer_links": ["api"], "run_history": False,
        "enable_monitoring": False, "share": False, "ssr_mode": False, "pwa": False, "mcp_server": False,
        "quiet": True, "inbrowser": False, "show_error": False, "prevent_thread_lock": True,
    }  # fmt: skip
