"""What ``-o`` may be: checked, or inferred where it is left out, before anything is loaded. And what was written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ddcm.audio.search import SUFFIXES as READ
from ddcm.audio.search import WRITTEN
from ddcm.errors import UserError, to_one_line
from ddcm.runtime.files import resolve_shipped, slug

SUFFIXES: dict[str, tuple[str, ...]] = {
    "reconstruct": WRITTEN, "transform": WRITTEN, "generate": WRITTEN, "decompress": WRITTEN, "compress": (".ddcm",),
    "evaluate": (".csv", ".jsonl"), "compare": (), "benchmark": (),
}  # fmt: skip
"""Verb -> suffixes of the files that its ``-o`` may name, the default first. Without any, ``-o`` is a folder."""
OTHERS = {".ddcm", ".csv", ".json", ".jsonl", ".html", ".txt", ".md", ".pdf", ".png", ".zip", ".ckpt"}
OF_FILES = READ | OTHERS
"""Suffixes of file types. A folder may have any other, such as ``run.2``."""
INFERRED = ("compress", "decompress")  # a file's output lies beside it, as with gzip


def name_choices(verb: str) -> str:
    suffixes = " or ".join(SUFFIXES[verb])
    if verb == "evaluate":
        return f"a {suffixes}"
    return f"a folder, or a {suffixes} for one input" if suffixes else "a folder"


def choose_out(verb: str, flags: Namespace) -> str | None:
    """The ``-o`` of a verb, or the one that follows from its inputs. Raises UserError: a file type that the verb does
    not write, or nothing that follows."""
    out, suffixes = flags.out, SUFFIXES[verb]
    if out is not None:
        suffix = Path(out).suffix.lower()
        if suffix in OF_FILES and suffix not in suffixes and not Path(out).is_dir():
            raise UserError(f"-o {out}: {verb} does not write {suffix}; name {name_choices(verb)}")
        return out
    if verb == "evaluate":
        return None
    if verb == "generate":
        return f"{slug(flags.prompt or 'unconditional')}.wav"
    if verb in INFERRED and len(flags.inputs) == 1 and not resolve_shipped(flags.inputs[0]).is_dir():
        return str(Path(flags.inputs[0]).with_suffix(suffixes[0]))
    raise UserError(f"-o is missing: name {name_choices(verb)}")


def describe_file(path: Path, seconds: float | None, info: dict[str, Any]) -> str:
    """A line with what was measured on the way: ``out/a.ddcm: 3.29 s, bytes 411, kbps 0.999``."""
    numbers = {key: value for key, value in info.items() if isinstance(value, int | float)}
    parts = [] if seconds is None else [f"{seconds:.2f} s"]
    digits = {name: ".4f" if isinstance(value, float) and abs(value) < 1 else ".6g" for name, value in numbers.items()}
    parts += [f"{name} {value:{digits[name]}}" for name, value in numbers.items()]
    return f"{to_one_line(str(path))}: {', '.join(parts)}"


def describe_folder(folder: Path, files: Sequence[tuple[float, int]], there: int = 0) -> str:
    """A line on files of (seconds of audio, bytes or 0): their number, length, and rate; ``there`` were finished
    before."""
    seconds, size = (sum(numbers) for numbers in zip(*files, strict=True)) if files else (0.0, 0)
    parts = [f"{len(files)} files written"] + [f"{seconds:.2f} s"] * bool(files)
    if size:
        parts.append(f"{size} bytes, {size / 125 / seconds:.3g} kbps")
    return f"{to_one_line(str(folder))}: {', '.join(parts + [f'{there} there before'] * bool(there))}"
