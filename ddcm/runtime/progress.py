"""Progress of long work: how many of how many steps are done, and the one bar that shows it."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

OnStep = Callable[[int, int], None]  # ``on_step(done, total)``, called after each step.
REDRAW_S = 1.0  # The elapsed time moves although a single step takes longer.
FORMAT = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class Progress:
    """Counts the steps of work that takes ``total`` of them, and reports each to ``on_step``."""

    def __init__(self, on_step: OnStep | None, total: int):
        self._on_step, self._total, self._done = on_step, total, 0

    def step(self) -> None:
        """One more step is done. Work that is tried again, such as by a fallback, adds no steps to the total."""
        self._done = min(self._done + 1, self._total)
        if self._on_step is not None:
            self._on_step(self._done, self._total)


def part_of(on_step: OnStep | None, number: int, count: int) -> OnStep:
    """For part ``number`` of ``count`` equal ones: passes its steps on as thousandths of a part."""

    def on_part(done: int, total: int) -> None:
        if on_step is not None:
            on_step(1000 * number + 1000 * done // total, 1000 * count)

    return on_part


class ProgressBar:
    """One bar for all of a command: it loads, then it works through ``total`` items, each of which has steps."""

    def __init__(self, bar: Any):
        self._bar, self._finished = bar, 0

    @property
    def is_shown(self) -> bool:
        return not self._bar.disable

    def begin(self, name: str) -> None:
        """The work on the item ``name`` begins."""
        self._bar.set_description(name)

    def on_step(self, done: float, total: int) -> None:
        """Of the present item, ``done`` of ``total`` steps are done."""
        self._move(self._finished + done / total, f"step {done:g}/{total}")

    def finish(self, finished: int | None = None) -> None:
        """One more item is done, or so many of them."""
        self._finished = self._finished + 1 if finished is None else finished
        self._move(self._finished)

    def _move(self, position: float, step: str = "") -> None:
        many = self._bar.total > 1
        parts = [f"{self._finished} of {self._bar.total} done"] * many + [step] * bool(step)
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        self._bar.update(position - self._bar.n)


@contextmanager
def progress_bar(total: int = 1, leave: bool = True, shown: bool = True) -> Iterator[ProgressBar]:
    """A bar on stderr, drawn at once as "loading", if stderr is a terminal. ``leave``: it stays there afterwards.
    ``shown``: False for processes beside the one that shows the progress of all."""
    from tqdm import tqdm

    disable = None if shown else True
    with tqdm(total=total, desc="loading: ", leave=leave, disable=disable, miniters=0, bar_format=FORMAT) as bar:
        ended = threading.Event()

        def redraw() -> None:
            while not ended.wait(REDRAW_S):
                bar.refresh()

        if not bar.disable:
            threading.Thread(target=redraw, daemon=True).start()
        try:
            yield ProgressBar(bar)
        finally:
            ended.set()


def write_line(text: str) -> None:
    """A line on stderr, above the bar where one is shown."""
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)
