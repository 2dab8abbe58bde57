"""One CPU thread or one for each core: what the embedded backbone takes, alone and beside other work.

    python -m benchmarks.threads [--page docs/speed.md]

Commands run in turn, each in a process of its own, so that start-up counts. "Beside" is with two busy processes for
each core. The last row is the number of threads that ``ddcm`` takes by itself.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tqdm import tqdm

from benchmarks.marks import fill
from ddcm.runtime.threads import CHOICES, COUNTS, count_cores

VERBS = {
    "generate, 3 s": ["generate", "--duration_s", "3"],
    "compress": ["compress", "examples/speech.flac"],
}


def run(verb: list[str], threads: int | None) -> float:
    """Wall seconds of a command, without the variables of OpenMP that are set here."""
    kept = {name: value for name, value in os.environ.items() if name not in CHOICES | COUNTS}
    with tempfile.TemporaryDirectory() as folder:
        suffix = ".ddcm" if verb[0] == "compress" else ".wav"
        words = [*verb, "-o", str(Path(folder) / f"out{suffix}"), *(["--threads", str(threads)] if threads else [])]
        begin = time.perf_counter()
        subprocess.run([sys.executable, "infer.py", *words], env=kept, check=True, capture_output=True)
        return time.perf_counter() - begin


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Two processes for each core that do nothing but compute."""
    spin = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(spin) for _ in range(2 * count_cores())]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(repeats: int) -> list[str]:
    """The table in Markdown."""
    choices = [1, count_cores(), None]
    lines = ["| command | threads | alone, s | beside, s | beside, over one thread alone |", "|---|---|---|---|---|"]
    for name, verb in tqdm(VERBS.items(), desc="commands"):
        run(verb, 1)  # files come from the disk once
        alone: dict[int | None, list[float]] = {threads: [] for threads in choices}
        beside: dict[int | None, list[float]] = {threads: [] for threads in choices}
        for _ in range(repeats):
            for threads in choices:
                alone[threads].append(run(verb, threads))
            with busy():
                for threads in choices:
                    beside[threads].append(run(verb, threads))
        for threads in choices:
            times = median(alone[threads]), median(beside[threads])
            cells = [
                name,
                str(threads or "by itself"),
                *(f"{x:.1f}" for x in times),
                f"{times[1] / median(alone[1]):.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="of each command; the table has medians")
    parser.add_argument("--page", type=Path, help="a page to put the table into, such as docs/speed.md")
    args = parser.parse_args()
    text = "\n".join([*measure(args.repeats), "", f"{count_cores()} cores, {2 * count_cores()} busy processes beside."])
    print(text)
    if args.page:
        fill(args.page, "benchmarks.threads", text)
