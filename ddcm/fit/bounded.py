"""YAML that cannot grow: a file of a few lines may stand for billions of values, or nest deeper than Python can go."""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

LONGEST, DEEPEST, MOST = 1 << 20, 50, 20_000  # characters, levels, values with every alias written out


class TooMuch(yaml.YAMLError):
    """Beyond the bounds above."""


@functools.cache
def guard_yaml() -> None:
    """From now on every configuration file is looked at before it is loaded."""
    load = get_loader("yaml")

    def guarded(text: str) -> Any:
        refuse_bombs(text)
        return load(text)

    set_loader("yaml", guarded, (yaml.YAMLError,))


def refuse_bombs(text: str, inside: bool = False) -> None:
    """
    Raises:
        TooMuch: YAML beyond the bounds; text that is not YAML is left to the loader.
    """
    if len(text) > LONGEST:
        raise TooMuch(f"more than {LONGEST} characters")
    sizes: dict[str, int] = {}  # values that an anchor stands for
    stack: list[tuple[str | None, int]] = []  # of what is open: its anchor, and how many values there were before it
    count = 0
    for event in _events(text):
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in stack):
                raise TooMuch("a value that contains itself")
            count += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = stack.pop()
            sizes[anchor or ""] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if not inside:  # a string may be loaded as YAML in its turn
                refuse_bombs(event.value, inside=True)
        if len(stack) > DEEPEST:
            raise TooMuch(f"nested more than {DEEPEST} deep")
        if count > MOST:
            raise TooMuch(f"more than {MOST} values")


def _events(text: str):
    with suppress(yaml.YAMLError):
        yield from yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
