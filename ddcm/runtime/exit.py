"""How a command ends: what the user can mend is one line on stderr, and the exit code says which kind of end it was."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from ddcm.errors import UserError, describe_error, to_one_line

MENDABLE, INTERRUPTED, PIPE_CLOSED, TERMINATED = 2, 130, 141, 143
MORE_MEMORY = "out of memory; use a smaller --batch_size or --dtype float16"


class Terminated(BaseException):
    """SIGTERM, as an exception: temporary files are cleared on its way."""


def run_to_exit_code(
    name: Callable[[], str], work: Callable[[], int], speaks: Callable[[], bool] = lambda: True, terminable: bool = True
) -> int:
    """``work()``, and its exit code or the one of what stopped it; ``name()`` is what the line starts with.

    Where ``speaks()`` is false another process says the line. Without ``terminable``, SIGTERM is left to whoever else
    minds it.
    """

    def said(line: str, code: int) -> int:
        if speaks():
            print(f"{name()}: {to_one_line(line)}", file=sys.stderr)
        return code

    try:
        with _terminable() if terminable else nullcontext():
            return work()
    except UserError as error:
        return said(str(error), MENDABLE)
    except BrokenPipeError:  # of ``ddcm recipes | head``: nobody is listening, not even to what is left in a buffer
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:
        return said(describe_os_error(error), MENDABLE)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return said(MORE_MEMORY, MENDABLE)
    except (KeyboardInterrupt, Terminated) as error:
        code = TERMINATED if isinstance(error, Terminated) else INTERRUPTED
        return said("interrupted; finished files stay, the same command goes on", code)


def describe_os_error(error: OSError) -> str:
    """In a line: a full disk, a folder that may not be written, a name that is too long, ..."""
    return f"{error.filename}: {describe_error(error)}" if error.filename else describe_error(error)


def is_out_of_memory(error: Exception) -> bool:
    """Python's, CUDA's, or torch's on the CPU, which has no class of its own."""
    return isinstance(error, MemoryError) or any(t in str(error) for t in ("out of memory", "t allocate memory"))


@contextmanager
def _terminable() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
