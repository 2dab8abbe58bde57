"""All that is measured on a GPU, in one run of known length.

    python -m benchmarks.gpu --minutes 9 --out DIR          # on the machine with the GPU
    python -m benchmarks.gpu --page DIR/results.json        # writes docs/gpu.md
    python -m benchmarks.gpu --wheels                       # what to bring to a machine without a network
    python -m benchmarks.gpu --prepare --files DIR          # the CPU's .ddcm files, made ahead on another machine
    python -m benchmarks.gpu --smoke --out DIR              # all parts, on a CPU with tiny networks

Parts run in the order of ``PARTS``. Each may use the time up to its share of ``--minutes``, and what it leaves is the
next one's. ``results.json`` is whole after every row. A second run with the same ``--out`` measures only what is
missing or failed. The weights are random, of the published size; they are written to ``--weights`` while the first
part runs.
"""

import argparse
import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.record import Record

PARTS = {"portability": 0.22, "verbs": 0.62, "fit": 0.66, "tests": 0.80, "ranks": 0.82, "compiled": 1.0}
"""name -> share of the whole time at which it must have ended"""
LACKING = (
    "diffusers", "importlib_metadata", "pytorch-optimizer", "librosa", "audioread", "pooch", "platformdirs",
    "decorator", "soxr", "soundfile", "cffi", "pycparser", "constriction", "jsonargparse", "docstring_parser",
    "typeshed_client", "vector-quantize-pytorch", "einx", "einops", "frozendict", "loguru", "torch-einops-utils",
)  # fmt: skip
"""what a machine with torch, transformers, lightning and pytest may lack; of the test tools, nothing"""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64",
             "manylinux1_x86_64")  # fmt: skip


def wheels(folder: str = "wheels", python: str = "3.12") -> str:
    """The command that downloads ``LACKING``, at the versions of requirements.lock."""
    lines = Path("requirements.lock").read_text().splitlines()
    locked = {line.split("==")[0].lower().replace("_", "-"): line for line in lines if "==" in line}
    names = [locked[name.lower().replace("_", "-")] for name in LACKING]
    platforms = " ".join(f"--platform {name}" for name in PLATFORMS)
    return (f"python -m pip download --no-deps --only-binary=:all: --python-version {python} --implementation cp "
            f"{platforms} -d {folder} {' '.join(names)}")  # fmt: skip


def run(args: argparse.Namespace) -> Record:
    import torch

    from benchmarks.gpu import fit_step, portability, processes, verbs
    from ddcm.runtime.memory import describe_machine

    device, smoke, record = args.device, args.smoke, Record(args.out / "results.json", args.minutes)
    record.data["machine"] = {
        "device": describe_machine(device), "cpu": describe_machine(), "torch": torch.__version__,
        "cuda": torch.version.cuda, "cards": torch.cuda.device_count(), "python": sys.version.split()[0],
        "date": datetime.date.today().isoformat(), "smoke": smoke,
        "command": f"python -m benchmarks.gpu {' '.join(args.argv)}",
    }  # fmt: skip
    devices = {"cpu": "cpu", "gpu": device}
    if smoke:
        files = portability.Setup(args.files, devices, "tiny", None, 0.7, 2, ("float32", "bfloat16"), clips=1)
        sizes = verbs.Setup(args.weights, "small", device, (1, 2), ("bfloat16", "float32"), 2, 4, 1.28,
                            ("generate",), matrix=64, repeats=1)  # fmt: skip
        fits = fit_step.Setup(device, backbone="tiny", samples=(2,), steps=2)
    else:
        files, fits = portability.Setup(args.files, devices), fit_step.Setup(device)
        sizes = verbs.Setup(args.weights, args.variant, device)
    measured = [part for part in ("verbs", "compiled") if part in args.parts]
    writing = verbs.start_writing(sizes) if measured else None

    def compiled() -> None:
        if smoke:
            record.note(verbs.COMPILED, "skipped: compiling takes minutes on a CPU")
        else:
            verbs.measure_compiled(record, sizes)

    work = {
        "portability": lambda: portability.measure(record, files),
        "verbs": lambda: verbs.measure(record, sizes, writing),
        "fit": lambda: fit_step.measure(record, fits),
        "tests": lambda: processes.run_tests(record),
        "ranks": lambda: processes.run_ranks(record, device),
        "compiled": compiled,
    }
    try:
        for name, until in PARTS.items():
            if name in args.parts:
                record.run(name, work[name], until)
    finally:
        if writing is not None and writing.poll() is None:
            writing.kill()
        record.save()
    return record


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder of results.json")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--variant", default="audioldm2")
    parser.add_argument("--weights", type=Path, default=Path("runs/gpu-weights"), help="folder; made if missing")
    parser.add_argument("--files", type=Path, default=Path("runs/gpu-files"), help="folder of .ddcm files")
    parser.add_argument("--prepare", action="store_true", help="make the CPU's files and end")
    parser.add_argument("--smoke", action="store_true", help="all parts with tiny networks on a CPU, in a minute")
    parser.add_argument("--page", type=Path, metavar="JSON", help="write docs/gpu.md of these results and end")
    parser.add_argument("--wheels", action="store_true", help="print a command that downloads wheels and end")
    args = parser.parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else list(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if args.wheels:
        print(wheels())
    elif args.page:
        import json

        from benchmarks.gpu import page

        page.write(json.loads(args.page.read_text()))
    elif args.prepare:
        from benchmarks.gpu import portability

        portability.prepare(portability.Setup(args.files, {"cpu": "cpu"}))
    elif args.out is None:
        parser.error("--out is missing")
    else:
        if args.smoke:
            args.device, args.weights, args.files = "cpu", args.out / "weights", args.out / "files"
        run(args)


if __name__ == "__main__":
    main()
