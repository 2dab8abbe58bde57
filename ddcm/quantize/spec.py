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


def from_spec(spec: dict[str, Any], numbers: int = 1 << 30) -> Quantizer:
    """The quantizer, not yet with its weights.

    Args:
        numbers: how many the weights have: nothing larger is made.

    Raises:
        UserError: a class that is not known here.
        KeyError, TypeError, ValueError, ArithmeticError: not a spec, or not one that fits the class or the weights.
    """
    if size_of(spec) > numbers:
        raise ValueError(f"weights of {numbers} numbers are not those of {size_of(spec)} and more")
    return _made(spec)


def size_of(spec: dict[str, Any], depth: int = 4) -> int:
    """No more numbers than the weights of a spec have, from what it says; it may ask for all the memory there is."""
    if depth == 0:
        raise ValueError("quantizers inside quantizers inside quantizers")
    config = spec["config"]
    atoms, dim, levels = (config.get(name, 1) for name in ("codebook_size", "embedding_dim", "levels"))
    if not all(isinstance(size, int) and size >= 1 for size in (atoms, dim, levels)):
        raise ValueError("sizes are whole numbers from 1 on")
    size = atoms * dim
    for inner in filter(_is_spec, config.values()):
        size = max(size, size_of(inner, depth - 1), dim * inner["config"].get("embedding_dim", 1))
    return levels * size


def _made(spec: dict[str, Any]) -> Quantizer:
    # By name among what was imported, never by an import path from the file: a config must not choose what runs.
    known = {cls.__name__: cls for cls in _subclasses(Quantizer)}
    if spec["class"] not in known:
        raise UserError(f"quantizer {spec['class']} is none of {', '.join(sorted(known))}: import it first")
    config = {name: _made(value) if _is_spec(value) else value for name, value in spec["config"].items()}
    return known[spec["class"]](**config)


def _is_spec(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"class", "config"}


def _subclasses(cls: type[Quantizer]) -> set[type[Quantizer]]:
    children: set[type[Quantizer]] = set(cls.__subclasses__())
    return children.union(*map(_subclasses, children))
