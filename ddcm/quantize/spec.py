"""A quantizer's class and settings as plain data, there and back; quantizers inside quantizers too."""

from __future__ import annotations

from typing import Any

from ddcm.errors import UserError
from ddcm.quantize.base import Quantizer


def to_spec(quantizer: Quantizer) -> dict[str, Any]:
    """``{"class": name, "config": arguments}``, JSON-able."""
    config = {
        name: to_spec(value) if isinstance(value, Quantizer) else value for name, value in quantizer.config.items()
    }
    return {"class": type(quantizer).__name__, "config": config}


def from_spec(spec: dict[str, Any]) -> Quantizer:
    """The quantizer, not yet with its weights.

    Raises:
        UserError: a class that is not known here.
        KeyError, TypeError, ValueError: not a spec, or not one that fits the class.
    """
    # By name among what was imported, never by an import path from the file: a config must not choose what runs.
    known = {cls.__name__: cls for cls in _subclasses(Quantizer)}
    if spec["class"] not in known:
        raise UserError(f"quantizer {spec['class']} is none of {', '.join(sorted(known))}: import it first")
    config = {
        name: from_spec(value) if isinstance(value, dict) and value.keys() == {"class", "config"} else value
        for name, value in spec["config"].items()
    }
    return known[spec["class"]](**config)


def _subclasses(cls: type[Quantizer]) -> set[type[Quantizer]]:
    children: set[type[Quantizer]] = set(cls.__subclasses__())
    return children.union(*map(_subclasses, children))
