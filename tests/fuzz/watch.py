"""One kind in a process of its own, watched: a hang, a crash and a gigabyte too many are seen, too."""

import multiprocessing
import os
import resource
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.kinds import KINDS
from tests.fuzz.run import Found, Report, cases, keep, many

HANG_S = 20  # of the processor: a case takes milliseconds
ASLEEP_S = 900  # of the wall: others may use this machine, too
MEMORY = 2 << 30  # bytes of the whole process, libraries and all
BACKSTOP = 12 << 30  # of address space: far more than may be used, and less than would end the machine


def child(kind: str, seed: int, numbers: range, at, pipe: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders in C complain there
    resource.setrlimit(resource.RLIMIT_AS, (BACKSTOP, BACKSTOP))

    def on_case(number: int) -> None:
        at.value = number

    pipe.send(many(kind, seed, numbers, on_case, lambda found: pipe.send(found)))


def busy_s(pid: int) -> float:
    """Seconds that a process has computed so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def used(pid: int, what: str) -> int:
    """Bytes: VmRSS now, VmHWM at most so far; 0 of a process that has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(what)), 0)


def watched(kind: str, seed: int, numbers: range, out: Path) -> tuple[Report, int]:
    """Run cases in a child; whatever ends it is found, and the next child goes on behind it. (report, peak bytes)"""
    context = multiprocessing.get_context("spawn")
    total, peak, first, places = Report(), 0, numbers.start, set()
    while first < numbers.stop:
        at, (here, there) = context.Value("q", -1), context.Pipe(duplex=False)
        process = context.Process(target=child, args=(kind, seed, range(first, numbers.stop), at, there))
        process.start()
        there.close()
        seen, since, computed, ended, report = -1, time.monotonic(), 0.0, "", None
        while report is None and not ended:
            if here.poll(0.05):
                try:
                    told = here.recv()
                except EOFError as error:
                    process.join()
                    if at.value < 0:
                        raise RuntimeError(f"{kind}: the process ended before its first case") from error
                    ended = f"crash: exit code {process.exitcode}"
                    continue
                if isinstance(told, Report):
                    report = told
                else:
                    place = told.trace.rpartition("\n  File")[2].split("\n")[0]  # where it was raised
                    trace = told.trace if place not in places else ""
                    places.add(place)
                    print(f"{kind}: {told.what}; kept in {keep(out, told)}\n{trace}", end="", flush=True)
            peak = max(peak, used(process.pid, "VmHWM"))
            if at.value != seen:
                seen, since, computed = at.value, time.monotonic(), busy_s(process.pid)
            elif seen >= 0 and (busy_s(process.pid) - computed > HANG_S or time.monotonic() - since > ASLEEP_S):
                ended = f"hang: more than {HANG_S} s of computing, or {ASLEEP_S} s of nothing"
            if used(process.pid, "VmRSS") > MEMORY:
                ended = "memory: more than 2 GiB"
        if report is None:
            process.kill()
            seen = max(at.value, first)
            (case,) = cases(KINDS[kind], seed, range(seen, seen + 1))
            found = Found(kind, case, ended)
            print(f"{kind}: case {seen}: {ended}; kept in {keep(out, found)}", flush=True)
            report = Report(Counter({"unfinished": seen + 1 - first}), [found])
        total.outcomes += report.outcomes
        total.found += report.found
        total.seconds += report.seconds
        first = seen + 1 if ended else numbers.stop
        process.join()
    return total, peak
