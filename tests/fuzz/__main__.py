"""The command: a table, and exit code 1 if anything was found."""

import argparse
import math
from pathlib import Path

from tests import fuzz
from tests.fuzz.kinds import KINDS
from tests.fuzz.watch import watched


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=fuzz.__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000, help="in all; slow kinds get fewer")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="folder for cases that break something")
    arguments = parser.parse_args()
    found = 0
    print(
        f"{'kind':<10} {'cases':>7} {'read':>7} {'refused':>7} {'found':>6} {'seconds':>8} {'peak MiB':>8}", flush=True
    )
    shares = {kind: KINDS[kind].share for kind in arguments.kinds}
    for kind, share in shares.items():
        count = math.ceil(arguments.cases * share / sum(shares.values()))
        report, peak = watched(kind, arguments.seed, range(count), arguments.out)
        outcomes = report.outcomes
        print(f"{kind:<10} {outcomes.total():>7} {outcomes['read']:>7} {outcomes['refused']:>7} {len(report.found):>6} "
              f"{report.seconds:>8.1f} {peak >> 20:>8}", flush=True)  # fmt: skip
        found += len(report.found)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
