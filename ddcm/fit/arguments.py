"""What can be checked of a fit's arguments before Lightning is loaded."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from ddcm.errors import UserError
from ddcm.runtime.files import resolve_shipped

ROOTS = "a folder of audio or a .csv with a column path"


def find_config(name: str) -> str:
    """The configuration file ``name``: as written if it exists, else of that name among those that ddcm comes with."""
    if not name.endswith(".yaml") or Path(name).exists():  # also YAML itself, which jsonargparse accepts
        return name
    path = resolve_shipped(Path("configs") / name)
    return str(path) if path.is_file() else name


def check_root(argv: Sequence[str]) -> None:
    """Raises UserError: ``--data.root`` is missing, or there is no such folder or .csv. Other kinds of data, and what
    cannot be read here, are left to Lightning's parser."""
    pairs = list(_list_pairs(argv))
    if any(name in ("-h", "--data") or name.startswith(("--help", "--print_config")) for name, _ in pairs):
        return
    roots = [value for name, value in pairs if name in ("--data.root", "--data.init_args.root")]
    for name, value in pairs:
        if not roots and name in ("-c", "--config"):
            try:
                data = yaml.safe_load(Path(find_config(value)).read_text(encoding="utf-8"))["data"]
                roots += [data.get("root") or data.get("init_args", {}).get("root") or data["class_path"]]
            except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
                continue
    if not roots:
        raise UserError(f"--data.root is missing: give {ROOTS}")
    if not Path(str(roots[-1])).exists() and any(value == roots[-1] for _, value in pairs):
        raise UserError(f"--data.root {roots[-1]}: no such folder; give {ROOTS}")


def _list_pairs(argv: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """(flag, value) as ``--flag value`` or ``--flag=value``."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        name, separator, value = word.partition("=")
        if name.startswith("-"):
            yield name, value if separator else following
