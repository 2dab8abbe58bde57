"""Exit codes of a command: errors that the user can mend become one line on stderr."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from ddcm.errors import UserError, describe_error, to_one_line
from ddcm.runtime.progress import write_line

log = logging.getLogger(__name__)

MENDABLE, INTERRUPTED, PIPE_CLOSED, TERMINATED = 2, 130, 141, 143
MORE_MEMORY = "out of memory; use a smaller --batch_size or --dtype float16"


class _Lines(logging.Handler):
    """Plain lines, to what is stderr at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        write_line(self.format(record))


_STDERR = _Lines(logging.WARNING)


class Terminated(BaseException):
    """SIGTERM as an exception, so that temporary files are removed."""


def run_to_exit_code(
    name: Callable[[], str], work: Callable[[], int], speaks: Callable[[], bool] = lambda: True, terminable: bool = True
) -> int:
    """Run ``work``; map known exceptions to exit codes and a line on stderr. The package's log goes there, too.
    ``name`` returns the start of the line, ``speaks`` whether this process prints it: of several processes, only one
    does. ``terminable``: whether SIGTERM is handled here; if not, its present handler stays."""

    def fail(line: str, code: int = MENDABLE) -> int:
        if speaks():
            log.error("%s: %s", name(), to_one_line(line))
        return code

    package = logging.getLogger("ddcm")
    package.addHandler(_STDERR)  # once, however often it is called
    package.propagate = False
    try:
        with _raise_on_sigterm() if terminable else nullcontext():
            return work()
    except UserError as error:
        return fail(str(error))
    except BrokenPipeError:  # ``ddcm recipes | head``: stdout is closed, and must not be flushed at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:
        return fail(describe_os_error(error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return fail(MORE_MEMORY)
    except (KeyboardInterrupt, Terminated) as error:
        code = TERMINATED if isinstance(error, Terminated) else INTERRUPTED
        return fail("interrupted; finished files stay, the same command goes on", code)


def describe_os_error(error: OSError) -> str:
    """One line with the file's name: a full disk, a folder that may not be written, a name that is too long, ..."""
    return f"{error.filename}: {describe_error(error)}" if error.filename else describe_error(error)


def is_out_of_memory(error: Exception) -> bool:
    """Python's error, CUDA's, or torch's on the CPU, which has no class of its own."""
    return isinstance(error, MemoryError) or any(t in str(error) for t in ("out of memory", "t allocate memory"))


@contextmanager
def _raise_on_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        raise Terminated

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
