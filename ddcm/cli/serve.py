"""``serve`` on the command line: the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def serve(arguments: Any, load: Callable[[], Any]) -> int:
    from ddcm.app.server import Limits, ServerOptions, serve

    limits = Limits(**{name: arguments[name] for name in Limits.__dataclass_fields__})
    return serve(load, ServerOptions(arguments.port, arguments.host, arguments.password), limits)


def add_verb(verb: Callable[[str, str], Any], common_options: Callable[[Any], None]) -> None:
    """As ``ddcm.cli.codec.add_verbs``."""
    one = verb("serve", "the same verbs on a web page")
    one.add_argument("--port", type=int, default=7860)
    one.add_argument("--host", type=str, default="127.0.0.1", help="0.0.0.0 lets other machines in")
    one.add_argument("--password", type=str, help="asked of every visitor; with any name")
    one.add_argument("--max_seconds", type=float, default=60.0, help="of a recording, in and out")
    one.add_argument("--max_megabytes", type=float, default=30.0, help="of an upload")
    one.add_argument("--max_waiting", type=int, default=32, help="requests that wait for their turn")
    one.add_argument("--keep_minutes", type=float, default=60.0, help="that files stay while a visitor's page is open")
    common_options(one)
