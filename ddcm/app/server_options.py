"""Settings of the page: where it listens, and what a visitor may ask for. No torch, no Gradio."""

import math
from dataclasses import asdict, dataclass

from ddcm.errors import UserError


@dataclass(frozen=True)
class ServerOptions:
    """Where the server listens, and for whom."""

    port: int = 7860
    host: str = "127.0.0.1"
    """0.0.0.0 lets other machines in"""
    password: str | None = None
    """asked of every visitor; with any name"""

    def __post_init__(self):
        if not 0 < self.port < 65536:
            raise UserError(f"--port {self.port} is outside [1, 65535]")
        if self.password == "":
            raise UserError("--password is empty; leave it out to let everybody in")


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for."""

    max_seconds: float = 60.0
    """of a recording, in and out"""
    max_megabytes: float = 30.0
    """of an upload"""
    max_waiting: int = 32
    """requests that wait for their turn"""
    keep_minutes: float = 60.0
    """that files stay while the page is open; they go at once when it is closed"""

    def __post_init__(self):
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise UserError(f"--{name} {value} must be above 0")
