"""A quantizer's class and options as plain data, and back; quantizers inside quantizers too."""

from typing import Any

from ddcm.errors import UserError
from ddcm.quantize import QUANTIZERS, Quantizer

# Options of our quantizers in version 0.1, and what they are called now.
RENAMED = {"levels": "num_quantizers", "revive_below": "threshold_usage_ratio"}
OURS = {cls.__name__ for cls in QUANTIZERS.values()}


def to_spec(quantizer: Quantizer) -> dict[str, Any]:
    """``{"class": name, "config": arguments}``, JSON-able."""
    pairs = quantizer.config.items()
    config = {name: to_spec(value) if isinstance(value, Quantizer) else value for name, value in pairs}
    return {"class": type(quantizer).__name__, "config": config}


def from_spec(spec: dict[str, Any], numbers: int = 1 << 30) -> Quantizer:
    """The quantizer of a spec, not yet with its weights. Options may have their names of version 0.1. The weights have
    so many ``numbers``; nothing larger is allocated. Raises UserError: an unknown class; KeyError, TypeError,
    ValueError or ArithmeticError: not a spec, or one that does not fit class or weights."""
    spec = rename_options(spec)
    if count_numbers(spec) > numbers:
        raise ValueError(f"weights of {numbers} numbers are not those of {count_numbers(spec)} and more")
    return _build(spec)


def rename_options(value: Any, ours: bool = True) -> Any:
    """Plain data (a spec, or a fit's configuration) with options of version 0.1 under today's names. Options of a class
    that is not ours stay as they are."""
    if isinstance(value, list):
        return [rename_options(item, ours) for item in value]
    if not isinstance(value, dict):
        return value
    name = value.get("class_path", value.get("class"))
    if isinstance(name, str):
        ours = name.rpartition(".")[2] in OURS
    return {RENAMED.get(key, key) if ours else key: rename_options(item, ours) for key, item in value.items()}


def count_numbers(spec: dict[str, Any], depth: int = 4) -> int:
    """Lower bound of how many numbers the weights of a spec have, computed before anything is allocated."""
    if depth == 0:
        raise ValueError("quantizers inside quantizers inside quantizers")
    config = spec["config"]
    atoms, dim, count = (config.get(name, 1) for name in ("codebook_size", "embedding_dim", "num_quantizers"))
    if not all(isinstance(size, int) and size >= 1 for size in (atoms, dim, count)):
        raise ValueError("sizes are whole numbers from 1 on")
    size = atoms * dim
    for inner in filter(_is_spec, config.values()):
        size = max(size, count_numbers(inner, depth - 1), dim * inner["config"].get("embedding_dim", 1))
    return count * size


def _build(spec: dict[str, Any]) -> Quantizer:
    # By name among imported classes, never by an import path from the file: a config must not choose what runs.
    known = {cls.__name__: cls for cls in _list_subclasses(Quantizer)}
    if spec["class"] not in known:
        raise UserError(f"quantizer {spec['class']} is none of {', '.join(sorted(known))}: import it first")
    config = {name: _build(value) if _is_spec(value) else value for name, value in spec["config"].items()}
    return known[spec["class"]](**config)


def _is_spec(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"class", "config"}


def _list_subclasses(cls: type[Quantizer]) -> set[type[Quantizer]]:
    children: set[type[Quantizer]] = set(cls.__subclasses__())
    return children.union(*map(_list_subclasses, children))
