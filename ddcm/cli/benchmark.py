"""``benchmark`` on the command line: recordings through the codec at several rates, beside other codecs."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from filelock import FileLock
from jsonargparse import Namespace

from ddcm.cli import options
from ddcm.cli.launcher import is_child
from ddcm.codec.codec_settings import WITH_CODEBOOK, CodecSettings, Mode
from ddcm.errors import UserError
from ddcm.runtime.progress import OnStep

if TYPE_CHECKING:
    from ddcm.cli.batch import Do, Done, Job
    from ddcm.evaluation.benchmark import Benchmark

ROWS, LOCK = "rows", ".lock"
SET_HERE = {"mode", "kbps", "quality", "db", "levels", "schedule", "schedules", "prompt", "guidance_scale", "verify"}
"""Settings of the codec that are no flags: those that vary, those of one recording, and a file's."""
OF_CODEC = CodecSettings.__dataclass_fields__.keys() - SET_HERE


def benchmark(arguments: Namespace) -> int:
    """recordings through the codec at several rates, beside other codecs: a table and plots

    ddcm benchmark examples -o out/benchmark --kbps 1 2 --steps 10
    ddcm benchmark AUDIO_DIR -o out/speech --speech --modes turbo vq --peers opus codec2 facebook/encodec_24khz
    """
    from ddcm.cli.batch import plan_jobs, process_files

    settings, rows = _list_settings(arguments), Path(arguments.out, ROWS)
    # Rows that are there count one by one, so no recording is passed over.
    jobs = plan_jobs(arguments.inputs, str(rows), overwrite=True, suffixes=(".jsonl",))
    load = functools.cache(lambda: _load(arguments, settings))
    code = process_files("benchmark", arguments, lambda: _measure(load(), rows, arguments.overwrite), jobs=jobs)
    stores = [job.target for job in jobs if job.source.exists() and job.target.exists()]
    if stores:
        _write(load(), Path(arguments.out), stores, arguments)
    return code


def _list_settings(arguments: Namespace) -> list[CodecSettings]:
    """Raises UserError: a rate or a setting out of range."""
    if arguments.seconds is not None and not arguments.seconds > 0:
        raise UserError(f"--seconds {arguments.seconds} is not a positive number")
    chosen: list[CodecSettings] = []
    for mode in dict.fromkeys(arguments.modes):
        common = {"mode": mode} | {name: arguments[name] for name in OF_CODEC}
        rates = [{}] if mode == "vq" else [{"kbps": rate} for rate in dict.fromkeys(arguments.kbps)]
        chosen += [CodecSettings(**common, **rate) for rate in rates]
    return chosen


def _load(arguments: Namespace, settings: list[CodecSettings]) -> Benchmark:
    from ddcm.evaluation.benchmark import Benchmark, list_ours, list_peers

    pipe = options.load_pipeline(arguments, quantises=any(each.mode in WITH_CODEBOOK for each in settings))
    peers = list_peers(arguments.peers, arguments.peer_kbps, pipe.backbone.device)
    return Benchmark([*list_ours(pipe, settings), *peers], arguments.speech, arguments.seconds)


def _measure(benchmark: Benchmark, rows: Path, overwrite: bool) -> Do:
    from ddcm.cli.batch import Done

    def do(job: Job, on_step: OnStep) -> Done:
        name = str(job.target.relative_to(rows).with_name(job.source.name))
        seconds = benchmark.measure_recording(job.source, name, job.target, overwrite, on_step)
        return Done(seconds, {"systems": len(benchmark.systems)})

    return do


def _write(benchmark: Benchmark, out: Path, stores: list[Path], arguments: Namespace) -> None:
    """Write the results of all recordings so far. Every process does this at its end, so the last one has all."""
    from ddcm.evaluation.rate_distortion import write_results

    with FileLock(out / LOCK):
        numbers, details = benchmark.collect(stores)
        if not numbers:
            return
        files = {str(row["file"]): float(row["seconds"]) for row in numbers}
        about = (
            f"`ddcm benchmark` on {len(files)} recordings, {sum(files.values()):.1f} s, with the backbone "
            f"{arguments.backbone}. Means over files, at 16 kHz, with 95 % confidence intervals by Student's t; kbps "
            "are the bytes of all files together x 8 / seconds, with their headers; times are of this machine, in "
            "seconds for a second of sound."
        )
        write_results(out, numbers, details, about)
    if not is_child():
        print_table(out)


def print_table(out: Path) -> None:
    """Print the table of the results in a folder, if there are any; where they are."""
    if (page := out / "benchmark.md").exists():
        print(*(line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")), page, sep="\n")


VERBS: options.Verbs = {
    benchmark: (
        options.flag("inputs", nargs="+", help="audio files or folders"),
        options.out("folder of the table, the plots and the rows; the same command goes on where it stopped"),
        options.flag("--overwrite", action="store_true", help="measure rows that are there again"),
        options.flag(
            "--kbps", nargs="+", type=float, default=[0.5, 1.0, 2.0, 4.0], help="but for vq (default: 0.5 1 2 4)"
        ),
        options.flag(
            "--modes", nargs="+", choices=get_args(Mode), default=["turbo"], help="as compress --mode (default: turbo)"
        ),
        options.flag(
            "--peers", nargs="*", help="codecs beside it: opus, codec2 (by ffmpeg), folders and hub names of EnCodec "
            "and DAC, which are not downloaded (default: opus where it is installed)",
        ),
        options.flag("--peer_kbps", nargs="+", type=float, help="their rates (default: usual ones up to 12)"),
        options.flag("--speech", action="store_true", help="also the metrics for speech, of those that are installed"),
        options.flag("--seconds", type=float, help="of each recording, from its beginning (default: all)"),
        options.take(CodecSettings, OF_CODEC),
        options.take(options.ModelSettings),
        options.take(options.ProcessSettings),
    ),
}  # fmt: skip
