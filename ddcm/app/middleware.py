"""Isolate the page: browsers contact no other server for it, and no request makes this server contact one."""

from __future__ import annotations

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; frame-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""``unsafe-eval`` is for Gradio, which compiles its templates in the browser."""
HEADERS = {"content-security-policy": POLICY, "referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}


class ContentSecurity:
    """ASGI middleware: adds ``HEADERS`` to every response; refuses paths that Gradio would fetch from elsewhere."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = scope["path"].lower()
        if "file=http" in path or "proxy=" in path:
            return await PlainTextResponse("not served here", 403)(scope, receive, send)

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        return await self.app(scope, receive, send_with_headers)
