"""Progress of long work: how many of how many steps are done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

OnStep = Callable[[int, int], None]  # ``on_step(done, total)``, called after each step.


class Progress:
    """Counts the steps of work that takes ``total`` of them, and reports each to ``on_step``."""

    def __init__(self, on_step: OnStep | None, total: int):
        self._on_step, self._total, self._done = on_step, total, 0

    def step(self) -> None:
        """One more step is done."""
        self._done += 1
        if self._on_step is not None:
            self._on_step(self._done, self._total)


@contextmanager
def progress_bar(unit: str) -> Iterator[OnStep]:
    """A bar on the terminal, if stderr is one; yields the function that moves it."""
    from tqdm import tqdm

    with tqdm(unit=unit, disable=None) as bar:

        def on_step(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield on_step
