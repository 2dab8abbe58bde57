"""Cache folder, files that come with the project or from the hub, and files that appear whole or not at all."""

import errno
import glob
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ddcm.errors import UserError

KEPT = 40  # letters of a name that its temporary name keeps: a name of the greatest length leaves no room for more


def cache_dir() -> Path:
    """``$DDCM_CACHE``, or ``ddcm`` in the user's cache folder."""
    if "DDCM_CACHE" in os.environ:
        return Path(os.environ["DDCM_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ddcm"


RESERVED = {
    "pocket": "checkpoints/pocket",
    "pocket-1024": "checkpoints/codebooks/pocket-1024",
    "pocket-residual": "checkpoints/codebooks/pocket-residual",
}
"""Name of a model that comes with the project -> its folder. The hub is never asked for one."""


def resolve_shipped(name: str | Path) -> Path:
    """Path of a file or folder that comes with the project, such as ``examples``. A path that exists in the working
    folder is returned as it is, and so is one that the project does not have. An installed package has the files in
    ``ddcm/data`` (see ``setup.py``); a checkout has them beside the package."""
    path = _shipped_folder() / name
    return path if os.path.exists(path) and not os.path.exists(name) else Path(name)


def resolve_model(name: str | Path) -> Path:
    """As ``resolve_shipped``, for a backbone or codebook: a reserved name is the model, even where a folder has it."""
    folder = RESERVED.get(str(name))
    return resolve_shipped(name) if folder is None else _shipped_folder() / folder


def _shipped_folder() -> Path:
    package = Path(__file__).parents[1]
    return package / "data" if (package / "data").is_dir() else package.parent


def is_hub_name(name: str) -> bool:
    """Whether ``name`` can be a hub repository, such as ``cvssp/audioldm2-music``, rather than a path or one of
    ``RESERVED``."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~", "checkpoints/"))


def download(what: str, name: str, patterns: Sequence[str]) -> Path:
    """Files of hub repository ``name`` that match ``patterns``, in the hub's cache. ``what`` is for messages. Raises
    UserError: no such repository, or no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:  # .bin twins of the weights are left out: half the download, and nothing to unpickle
        return Path(snapshot_download(name, allow_patterns=list(patterns), ignore_patterns=["*.bin"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{what} {name} could not be had from the hub ({reason})") from error


def list_files(
    folder: Path, links: bool = False, on_error: Callable[[OSError], object] | None = None
) -> Iterator[Path]:  # fmt: skip
    """Files at every depth. Unlike ``Path.rglob``, ``os.walk`` continues when a folder is removed meanwhile. With
    ``links``, links to folders are followed, but no folder is searched twice: not in a circle, and not by two names. A
    folder that cannot be read is passed over after ``on_error``."""
    pending, seen = [folder], set[str]()
    while pending:
        for inside, folders, names in os.walk(pending.pop(0), onerror=on_error):
            if links:
                real = os.path.realpath(inside)
                if real in seen:
                    folders.clear()
                    continue
                seen.add(real)
                folders.sort()
                pending += [path for path in (Path(inside, name) for name in folders) if path.is_symlink()]
            yield from (Path(inside, name) for name in names)


def slug(text: str, longest: int = 60) -> str:
    """A file name from any text: letters, digits, underscores and dots; the rest becomes dashes."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.").lower()[:longest] or "sound"


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of ``path`` whose processes were killed."""
    path = Path(path)
    for left in path.parent.glob(glob.escape(f".{path.stem[:KEPT]}.") + "*-*.part*"):
        pid = left.name[len(f".{path.stem[:KEPT]}.") :].partition("-")[0]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    if sys.platform == "win32":  # os.kill would end the process, or send Ctrl-C
        return _alive_on_windows(pid)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # a process of another user
        return True
    return True


def _alive_on_windows(pid: int) -> bool:
    import ctypes

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    handle = kernel.OpenProcess(0x100000, False, pid & 0xFFFFFFFF)  # SYNCHRONIZE
    if not handle:
        return ctypes.get_last_error() == 5  # type: ignore[attr-defined]  # access denied: of another user
    ended = kernel.WaitForSingleObject(handle, 0) == 0
    kernel.CloseHandle(handle)
    return not ended


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it replaces ``path`` only if the block succeeds. For a file or a folder.
    The temporary path keeps the suffix, which some writers read. Several writers of one path do not interfere; the last
    one to finish wins. Raises OSError: with the name of ``path``: a full disk, a folder that may not be written, ..."""
    path = Path(path)
    unique = f".{path.stem[:KEPT]}.{os.getpid()}-{secrets.token_hex(4)}.part"
    temporary = path.with_name(unique + path.suffix[-20:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir():
            _replace_folder(temporary, path, path.with_name(unique + ".old"))
        else:
            os.replace(temporary, path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):  # the first error is already on its way
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def _replace_folder(new: Path, path: Path, aside: Path) -> None:
    """Replace a folder. One that is not empty cannot be replaced in one step: it is moved aside first."""
    while True:
        try:
            os.replace(new, path)
            return
        except OSError as error:  # not empty, or a file
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with suppress(FileNotFoundError):  # another writer was faster
            os.replace(path, aside)
            shutil.rmtree(aside)
