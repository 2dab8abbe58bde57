"""``fit``, ``validate`` and ``test``: the command line of Lightning around the codebook, as in ``train.py``."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace


def run(words: Sequence[str]) -> int:
    """The command, verb and all; its exit code."""
    from ddcm.fit.cli import main

    try:
        main(list(words))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _add_flags(parser: ArgumentParser) -> None:
    """Its flags are those of ``ddcm.fit.cli``: listing them would load Lightning."""


def _run(arguments: Namespace) -> int:
    raise AssertionError("main hands these verbs over before it parses anything")


VERBS = {
    "fit": ("fit a codebook (as python train.py fit)", _add_flags, _run),
    "validate": ("metrics of a codebook on the validation clips (as python train.py validate)", _add_flags, _run),
    "test": ("metrics of a codebook on the test clips (as python train.py test)", _add_flags, _run),
}
