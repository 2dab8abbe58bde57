"""Run work in a forked process, so that it leaves nothing behind in the process of the tests."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch


def one_thread() -> None:
    """Use one thread. OpenMP's threads do not survive a fork: a child that uses more than one hangs. The variable keeps
    Lightning from raising the number again."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@contextmanager
def forking() -> Iterator[None]:
    """Around code that forks by itself."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def forked(work: Callable[[], object], exit_code: int = 0) -> None:
    """Run ``work`` in a forked process, which must end with ``exit_code``; a negative number is a signal.

    For work that opens a process group: gloo starts a thread that later forks would lack, and they would hang. A fork
    is used because a new process takes seconds to import.
    """

    def alone() -> None:
        one_thread()
        work()

    process = multiprocessing.get_context("fork").Process(target=alone)
    process.start()
    process.join(300)
    if process.is_alive():
        process.kill()
    assert process.exitcode == exit_code, f"exit code {process.exitcode}"
