"""Where things are cached, and files that appear whole or not at all."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """``$DDCM_CACHE``, or ``ddcm`` in the user's cache folder."""
    if "DDCM_CACHE" in os.environ:
        return Path(os.environ["DDCM_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ddcm"


def shipped(name: str | Path) -> Path:
    """``name`` as it is, or in the project's own folder where only that exists: found from any working folder."""
    beside = Path(__file__).parent.parent / name
    return beside if beside.exists() and not Path(name).exists() else Path(name)


def sweep(path: Path) -> None:
    """Remove what processes that were killed left of ``path`` under its temporary names."""
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*.part{path.suffix}"):
        pid = left.name.removesuffix(f".part{path.suffix}").rpartition(".")[2]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside ``path``; it takes the place of ``path`` only if the block succeeds.

    For a file or a folder. The temporary name keeps the suffix, which some writers look at. Two processes
    that write the same path do not meet, and the last one to finish wins.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        if temporary.is_dir() and path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
