"""A long recording against a short one: memory, time and seams.

    python -m benchmarks.long                                        # 1 and 10 minutes, embedded backbone, 30 steps
    python -m benchmarks.long --backbone tiny --minutes 1 2

``ddcm compress`` and ``ddcm decompress`` run for each length in a process of their own, on one thread. The peak
memory is the operating system's; seconds are processor time. A recording of one second comes first: its time is that
of starting the process, and is subtracted from the other times, whose ratio should then be the ratio of the frames in
their windows. The shorter recording has 57.5 s, because its six windows are as long as those of ten minutes. A whole
minute has seven shorter windows, in which attention costs less a frame. A seam shows as a log-mel error in the cross-
fades that differs from the error elsewhere.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from ddcm.audio.files import audio_writer, read_audio
from ddcm.audio.layout import even_layout
from ddcm.audio.level import normalise_level
from ddcm.audio.mel import LN_TO_DB, MelSpec, log_mel

ROOT = Path(__file__).parent.parent
START = 1 / 60  # minutes
SOURCES = ("speech", "melodic", "drumloop", "bird")
PROGRAM = """
import resource, sys, time
from ddcm.cli.main import main
begin = time.process_time()
code = main(sys.argv[1:])
kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"seconds {time.process_time() - begin} mib {kib / 1024}")
sys.exit(code)
"""


def write_recording(path: Path, minutes: float) -> int:
    """The shipped recordings in a loop, each time at another level; returns the number of samples (16 kHz)."""
    pieces = [normalise_level(read_audio(ROOT / "examples" / f"{name}.flac"))[0] for name in SOURCES]
    left = total = round(minutes * 60 * 16000)
    with audio_writer(path, 16000) as write:
        number = 0
        while left:
            piece = pieces[number % len(pieces)][:left] * (1 - 0.1 * (number % 7))
            write(piece)
            left, number = left - len(piece), number + 1
    return total


def command(*words: object) -> tuple[float, float]:
    """(seconds, MiB) of ``ddcm WORDS`` in its own process."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, mib = re.findall(r"seconds (\S+) mib (\S+)", done.stdout)[-1]
    return float(seconds), float(mib)


def errors_db(source: Path, decoded: Path) -> tuple[float, float]:
    """Mean |log-mel difference| in the frames that two windows share, and in all others."""
    total, seam, rest = 0, [], []
    audio, other = read_audio(source), read_audio(decoded)
    layout, spec = even_layout(len(audio), 160), MelSpec()
    shared = torch.zeros(layout.total + layout.size, dtype=torch.bool)
    for before, start in zip(layout.starts, layout.starts[1:], strict=False):
        shared[start : before + layout.size] = True
    for at in range(0, len(audio) // 160 * 160, 16000 * 60):
        pair = torch.stack([audio[at : at + 16000 * 60], other[at : at + 16000 * 60]])
        frames = pair.shape[1] // 160
        a, b = log_mel(pair[:, : frames * 160], spec)[:, 0]
        error, inside = (a - b).abs().mean(dim=1) * LN_TO_DB, shared[total : total + frames]
        seam.append(error[inside])
        rest.append(error[~inside])
        total += frames
    return float(torch.cat(seam).mean()), float(torch.cat(rest).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--minutes", type=float, nargs=2, default=(57.5 / 60, 10))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--kbps", type=float, default=1.0)
    args = parser.parse_args()
    options = ("--backbone", args.backbone, "--batch_size", 4, "--threads", 1)
    print("| minutes | windows | frames each | verb | seconds | peak MiB |\n|---|---|---|---|---|---|")
    measurements: dict[str, list[tuple[int, float, float]]] = {"compress": [], "decompress": []}
    with tempfile.TemporaryDirectory() as folder:
        for minutes in (START, *args.minutes):
            source, packed, decoded = (Path(folder) / f"{minutes:g}{end}" for end in (".wav", ".ddcm", ".decoded.wav"))
            layout = even_layout(write_recording(source, minutes), 160)
            windows = len(layout.starts)
            words = {
                "compress": (source, "-o", packed, "--steps", args.steps, "--kbps", args.kbps, *options),
                "decompress": (packed, "-o", decoded, *options),
            }
            for verb, rest in words.items():
                seconds, mib = command(verb, *rest)
                measurements[verb].append((windows * layout.size, seconds, mib))
                print(
                    f"| {minutes:.4g} | {windows} | {layout.size} | {verb} | {seconds:.1f} | {mib:.0f} |",
                    flush=True,
                )
            if windows == 1:
                continue
            seam, elsewhere = errors_db(source, decoded)
            print(f"{minutes:.4g} min: error {seam:.3f} dB in cross-fades, {elsewhere:.3f} dB elsewhere", flush=True)
    for verb, ((first, start_s, _), (few, short_s, short_mib), (many, long_s, long_mib)) in measurements.items():
        frames, time = (many - first) / (few - first), (long_s - start_s) / (short_s - start_s)
        memory = long_mib / short_mib
        print(f"{verb}: {frames:.2f} times the frames, {time:.2f} times the time, {memory:.3f} times the memory")


if __name__ == "__main__":
    main()
