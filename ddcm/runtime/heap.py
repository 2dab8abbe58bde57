"""Memory that was freed and that the C library keeps for later."""

from __future__ import annotations

import ctypes
import functools
import sys


def give_back() -> None:
    """To the system, now: after a stage with many large arrays glibc keeps up to a gigabyte of pieces, and the next
    stage's come on top of it. Elsewhere nothing happens: other C libraries keep less."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim():
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
