"""Keep the warnings and adverts of other packages off the terminal."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLES = {
    "TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip
RANK_ZERO = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")


def silence_libraries() -> None:
    """For a command, before it imports them. ``PYTHONWARNINGS`` or ``python -W`` bring the warnings back, and a
    variable that is set stays as it is."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    for name in RANK_ZERO:
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def silence_native_code() -> Iterator[None]:
    """Nothing is written to stderr, by libraries in C++ either. For the loading of one that greets."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
