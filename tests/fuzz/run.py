"""One case, and many of them in this process."""

import hashlib
import random
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ddcm.errors import UserError
from tests.fuzz.kinds import KINDS, ROOT, Case, Kind, Read

CORPUS, KNOWN = Path(__file__).parent / "corpus", Path(__file__).parent / "found"


@dataclass
class Found:
    """What broke the package."""

    kind: str
    case: Case
    what: str
    """The exception in a line; or hang, crash, memory."""
    trace: str = ""


@dataclass
class Report:
    """Of many cases of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    found: list[Found] = field(default_factory=list)
    seconds: float = 0.0


def stored(folder: Path) -> dict[str, Case]:
    """Cases on disk: a file is one, and so is a folder of files."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        entry.name: {file.name: file.read_bytes() for file in (sorted(entry.iterdir()) if entry.is_dir() else [entry])}
        for entry in entries
    }


def keep(folder: Path, found: Found) -> Path:
    """Write a case that was found below ``folder``, under a name of its content."""
    digest = hashlib.sha256(b"".join(found.case.values())).hexdigest()[:12]
    place = folder / found.kind / digest
    place.mkdir(parents=True, exist_ok=True)
    for name, content in found.case.items():
        (place / name).write_bytes(content)
    return place


def seeds_of(kind: Kind) -> list[Case]:
    """The intact ones."""
    seeds = list(stored(CORPUS / kind.name).values())
    if kind.shipped:
        seeds += [{path.name: path.read_bytes()} for path in sorted(ROOT.glob(kind.shipped))]
    return seeds


def cases(kind: Kind, seed: int, numbers: range) -> Iterator[Case]:
    """Cases by number; each follows from the kind, the seed and its number alone."""
    seeds = seeds_of(kind)
    for number in numbers:
        rng = random.Random(f"{kind.name} {seed} {number}")
        yield kind.change(rng, rng.choice(seeds), rng.choice(seeds))


def one(kind: Kind, read: Read, case: Case, folder: Path) -> tuple[str, Found | None]:
    """Give the package a case: (read or refused, what was found). Its files lie in ``folder`` meanwhile."""
    for name, content in case.items():
        (folder / name).write_bytes(content)
    try:
        read(folder)
        outcome, found = "read", None
    except UserError as error:
        outcome = "refused"
        found = None if "\n" not in str(error) else Found(kind.name, case, f"two lines: {error!r}")
    except Exception as error:  # the point of it all
        outcome = type(error).__name__
        found = Found(kind.name, case, f"{type(error).__name__}: {error}"[:300], traceback.format_exc())
    for name in case:
        (folder / name).unlink()
    return outcome, found


def many(
    name: str, seed: int, numbers: range, on_case: Callable[[int], None] = lambda number: None,
    on_found: Callable[[Found], None] = lambda found: None,
) -> Report:  # fmt: skip
    """Cases of one kind, in this process; ``on_case`` is told the number of each before it is given."""
    kind, report, start = KINDS[name], Report(), time.monotonic()
    read = kind.prepare()
    with tempfile.TemporaryDirectory() as folder:
        for case in seeds_of(kind):  # what is imported late is imported now, and a seed that is refused is no seed
            outcome, found = one(kind, read, case, Path(folder))
            if outcome != "read":
                raise RuntimeError(f"{name}: seed {', '.join(case)} is {outcome}")
        for number, case in zip(numbers, cases(kind, seed, numbers), strict=True):
            on_case(number)
            outcome, found = one(kind, read, case, Path(folder))
            report.outcomes[outcome] += 1
            if found is not None:
                report.found.append(found)
                on_found(found)
    report.seconds = time.monotonic() - start
    return report
