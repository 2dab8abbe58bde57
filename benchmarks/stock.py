"""The stock pipeline of diffusers against ours: time and peak memory, on a folder of the published size.

    python -m benchmarks.full_size runs/audioldm2
    python -m benchmarks.stock runs/audioldm2 --steps 4 --threads 1 --dtypes float32 bfloat16
    python -m benchmarks.stock runs/audioldm2 --device cuda --steps 50 --batch 1 4 16 --seconds 10 60 --dtypes bfloat16

"Ours" uses the measures that change no result. "Fastest" uses all: bfloat16 everywhere, and --compile if that flag is
set. "Best stock" is the stock pipeline with its own best options: bfloat16, channels last, and torch.compile with
--compile. All are compared with the stock pipeline in the first row. Each system runs in a process of its own, so that
peaks do not mix, after ``--warm`` runs. On the CPU times are processor time on ``--threads`` threads, because other
work on the machine would otherwise count too. "First" is a new prompt without the loading of weights, which has a
column of its own. "Second" is another prompt in the same process, loading included. The table is written into
docs/audioldm2.md, row by row.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from benchmarks.marks import cell, fill
from ddcm.cli.options import set_threads
from ddcm.runtime.memory import describe_machine

PAGE, MARK = Path("docs/audioldm2.md"), "benchmarks.stock"
SYSTEMS = ["stock", "ours", "best stock", "fastest"]
HEAD = ("task", "batch", "s", "steps", "dtype", "system", "load, s", "first, s", "second, s", "peak MiB", "times")


def run_case(system: str, case: dict, threads: int | None, repeats: int, warm: int) -> dict:
    import torch

    from benchmarks import systems

    set_threads(threads)
    case = systems.Case(**case)
    cuda = case.device.startswith("cuda")
    clock = systems.clock(case.device)
    loaded = getattr(systems, system)(case)

    def timed(prompt: str) -> tuple[float, float]:
        late = len(loaded.late_load_s)
        begin = clock()
        loaded.work(prompt)
        if cuda:
            torch.cuda.synchronize()
        return clock() - begin, sum(loaded.late_load_s[late:])

    for _ in range(warm):
        loaded.work("warm")
    first, late_first = timed(systems.PROMPTS[0])
    seconds = [timed(systems.PROMPTS[1]) for _ in range(repeats)] or [(float("nan"), 0.0)]
    second, late_second = min(seconds)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else resident
    return dict(load_s=loaded.load_s + late_first, first_s=first - late_first, second_s=second,
                second_load_s=late_second, peak_mib=peak)  # fmt: skip


def measure(system: str, case: dict, args: argparse.Namespace) -> dict:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.stock", "--child", json.dumps([system, case]),
               "--repeats", str(args.repeats), "--warm", str(args.warm)]  # fmt: skip
    if args.threads:
        command += ["--threads", str(args.threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{system} {case['task']}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_rows(args: argparse.Namespace) -> Iterator[tuple]:
    with tempfile.TemporaryDirectory() as folder:
        for batch, seconds, dtype, task in product(args.batch, args.seconds, args.dtypes, args.tasks):
            case = dict(folder=args.folder, task=task, batch=batch, seconds=seconds, steps=args.steps,
                         device=args.device, dtype=dtype)  # fmt: skip
            case["stream"] = f"{folder}/{batch}-{seconds}-{dtype}.ddcm"
            fastest = dict(dtype="bfloat16", vae_dtype="bfloat16", compiled=args.compile)
            fastest["stream"] = f"{case['stream']}.fastest"  # a file is decoded with the dtype of its encoder
            best = dict(dtype="bfloat16", channels_last=True, compiled=args.compile)
            settings = {"stock": case, "ours": case, "best stock": case | best, "fastest": case | fastest}
            baseline: dict | None = None
            for system in args.systems:
                result = measure("stock" if "stock" in system else "ours", settings[system], args)
                baseline = baseline or result
                ratios = " / ".join(cell(baseline[key] / result[key], 2) for key in ("first_s", "second_s"))
                steps = "-" if task == "reconstruct" else args.steps
                used = settings[system]["dtype"]
                yield (task, batch, f"{seconds:g}", steps, used, system, *(
                    cell(result[key], 1) for key in ("load_s", "first_s", "second_s")), f"{result['peak_mib']:.0f}",
                    "1" if result is baseline else ratios)  # fmt: skip


def table(results: list[tuple], args: argparse.Namespace, machine: str) -> str:
    flags = " ".join(args.argv).replace(args.folder, Path(args.folder).name)
    lines = [f"{Path(args.folder).name}, {machine}; `python -m benchmarks.stock {flags}`", ""]
    lines += [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in results)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="of benchmarks.full_size, or of real weights")
    tasks = ("generate", "transform", "reconstruct", "compress", "decompress")
    parser.add_argument("--tasks", nargs="+", default=list(tasks), choices=tasks)
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, choices=SYSTEMS)
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--seconds", nargs="+", type=float, default=[10.24])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--compile", action="store_true", help="in best stock and fastest too; give --warm 1")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=1, help="of the second prompt; the best counts")
    parser.add_argument("--warm", type=int, default=0)
    parser.add_argument("--mark", default=MARK, help="the table's name in the page; none: print only")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        system, case = json.loads(args.child)
        print(json.dumps(run_case(system, case, args.threads, args.repeats, args.warm)))
        return
    args.argv = sys.argv[1:]
    print(f"| {' | '.join(HEAD)} |")
    set_threads(args.threads)
    results = []
    for row in measure_rows(args):  # fill the page after every row, so that an interrupted run leaves its rows
        results.append(row)
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
        if args.mark != "none":
            fill(PAGE, args.mark, table(results, args, describe_machine(args.device)))


if __name__ == "__main__":
    main()
