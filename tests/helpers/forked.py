"""Work that must leave no trace in the process of the tests."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch


def one_thread() -> None:
    """OpenMP's threads do not pass a fork: a child that wants more than one hangs. The variable keeps Lightning from
    raising the number again."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@contextmanager
def forking() -> Iterator[None]:
    """Around what forks by itself."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def forked(work: Callable[[], object], exit_code: int = 0) -> None:
    """Run ``work`` in a forked process, which must end with ``exit_code``: a negative one is a signal.

    For whatever opens a process group: gloo keeps a thread that later forks would lack, and they would hang. Forked,
    because a fresh process spends seconds on imports.
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
