"""Peak memory of every verb over a file, for several lengths of audio. It must not grow with the length.

    python -m benchmarks.memory                                       # the embedded backbone
    python -m benchmarks.memory --backbone tiny --minutes 1.5 10

Each run is a process of its own, as a user starts it. The table is written into docs/audioldm2.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.marks import fill

PAGE, MARK = Path("docs/audioldm2.md"), "benchmarks.memory"
RATE = 44100  # of the input file, which the verbs resample


def write_recording(path: Path, minutes: float) -> None:
    """Two channels of noise with a changing level, written second by second."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16") as file:
        for second in range(round(60 * minutes)):
            file.write(0.1 * (1 + np.sin(second)) * rng.standard_normal((RATE, 2)))


def peak_mib(*arguments: str) -> float:
    """Peak memory of the process ``ddcm ARGUMENTS``, in MiB."""
    process = subprocess.Popen([sys.executable, "infer.py", *arguments], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"ddcm {' '.join(arguments)} failed")
    return usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--minutes", nargs="+", type=float, default=[1.5, 10.0])
    parser.add_argument("--verbs", nargs="+", default=["reconstruct", "transform", "compress", "decompress"])
    parser.add_argument("--threads", default="1")
    parser.add_argument("--mark", default=MARK, help="the table's name in the page; none: print only")
    args = parser.parse_args()
    common = ["--backbone", args.backbone, "--threads", args.threads, "--overwrite"]
    options = {"reconstruct": [], "transform": ["--quantizer", "none", "--steps", "2"],
           "compress": ["--steps", "3", "--kbps", "0.5"], "decompress": []}  # fmt: skip
    lines = [f"`python -m benchmarks.memory {' '.join(sys.argv[1:])}`: peak MiB of the process", ""]
    lines += ["| verb | " + " | ".join(f"{minutes:g} min" for minutes in args.minutes) + " |"]
    lines += ["|---" * (len(args.minutes) + 1) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        sources = [Path(folder) / f"{minutes:g}.wav" for minutes in args.minutes]
        for source, minutes in zip(sources, args.minutes, strict=True):
            write_recording(source, minutes)
        for verb in args.verbs:
            peaks = []
            for source in sources:
                packed = source.with_suffix(".ddcm")
                source_file, out = (packed, "out.wav") if verb == "decompress" else (source, "out.wav")
                target = packed if verb == "compress" else Path(folder) / out
                peaks.append(peak_mib(verb, str(source_file), "-o", str(target), *options[verb], *common))
            lines.append(f"| {verb} | " + " | ".join(f"{peak:.0f}" for peak in peaks) + " |")
            print(lines[-1], flush=True)
            if args.mark != "none":
                fill(PAGE, args.mark, "\n".join(lines))


if __name__ == "__main__":
    main()
