"""Work that must leave no trace in the process of the tests."""

import multiprocessing
from collections.abc import Callable


def forked(work: Callable[[], object]) -> None:
    """Run ``work`` in a forked process; it must not fail.

    For whatever opens a process group: gloo keeps a thread that later forks would lack, and they would hang. Forked,
    because a fresh process spends seconds on imports.
    """

    def alone() -> None:
        import torch

        torch.set_num_threads(1)  # OpenMP's threads do not pass a fork either
        work()

    process = multiprocessing.get_context("fork").Process(target=alone)
    process.start()
    process.join(300)
    if process.is_alive():
        process.kill()
    assert process.exitcode == 0, f"exit code {process.exitcode}"
