"""Find audio files in folders. No torch: the command line refuses missing files before it is loaded."""

import logging
import mimetypes
from collections.abc import Collection, Iterable
from pathlib import Path

from ddcm.errors import UserError, to_one_line
from ddcm.runtime.files import list_files, resolve_shipped
from ddcm.runtime.ranks import read_launched_rank

log = logging.getLogger(__name__)

SUFFIXES = {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".spx", ".mp3", ".mp2", ".mpga", ".aiff", ".aif",
            ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".nist", ".voc", ".m4a", ".m4b", ".m4r",
            ".aac", ".adts",
            ".wma", ".ac3", ".eac3", ".amr", ".ape", ".dts", ".mka", ".mpc", ".ra", ".shn", ".tak", ".tta", ".weba",
            ".wv", ".mp4", ".webm", ".mov", ".mkv", ".3gp", ".avi", ".flv", ".wmv", ".mpg", ".mpeg", ".ogv",
            ".asf"}  # fmt: skip

WRITTEN = (".wav", ".flac")
"""Suffixes of the audio files that are written, the default first."""


def find_audio(
    inputs: Iterable[str | Path], suffixes: Collection[str] = SUFFIXES, what: str = "audio"
) -> list[tuple[Path, Path]]:
    """Audio files in ``inputs``, sorted: (path, path relative to the input).

    A file is taken whatever its suffix, even if it is missing: reading it reports that. A folder is searched at every
    depth, links too, for known suffixes; hidden files are left out. Other sound and video, broken links and folders
    that cannot be read are left out with a warning. Raises UserError: a folder without audio.
    """
    files: list[tuple[Path, Path]] = []
    for source in map(resolve_shipped, inputs):
        if not source.is_dir():
            files.append((source, Path(source.name)))
            continue
        inside, left_out = _search(source, suffixes)
        if left_out and read_launched_rank()[0] == 0:
            listed = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
            log.warning("%s", to_one_line(f"left out, as not readable or of a kind that is not read: {listed}"))
        if not inside:
            raise UserError(f"no {what} in {source}: looked for {', '.join(sorted(suffixes))}")
        files += [(path, path.relative_to(source)) for path in inside]
    return files


def _search(folder: Path, suffixes: Collection[str]) -> tuple[list[Path], list[str]]:
    """Files of a folder with known suffixes, and what was left out but may be sound."""
    found, left_out = list[Path](), list[str]()
    for path in sorted(list_files(folder, True, lambda error: left_out.append(str(error.filename)))):
        known = path.suffix.lower() in suffixes
        if path.name.startswith("."):
            continue
        if known and path.is_file():
            found.append(path)
        elif known or (suffixes is SUFFIXES and _is_media(path)):
            left_out.append(str(path))
    return found, left_out


def _is_media(path: Path) -> bool:
    return (mimetypes.guess_type(path.name, strict=False)[0] or "").startswith(("audio/", "video/"))
