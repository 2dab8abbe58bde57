"""A verb over many files: what is done is skipped, what fails is listed, the rest goes on."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ddcm.audio.files import audio_writer, duration_s, find_audio, read_audio, write_audio
from ddcm.audio.recording import SpooledAudio, spool_audio
from ddcm.cli import launcher
from ddcm.cli.run_log import Record, merge, rows
from ddcm.errors import UserError, to_one_line
from ddcm.pipeline.output import Info, Output
from ddcm.runtime import distributed
from ddcm.runtime.exit import MORE_MEMORY, describe_os_error, is_out_of_memory
from ddcm.runtime.files import remove_leftovers
from ddcm.runtime.progress import OnStep

NO_USE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # the next file would fare no better
NOT_TRIED = "the rest was not tried"
Work = Callable[[torch.Tensor, OnStep], Output]
"""(audio (S,), on_step) -> Output"""
Stream = Callable[[SpooledAudio, Callable[[torch.Tensor], None], OnStep], Info]
"""(recording, write, on_step) -> Info; ``write`` is called with pieces of audio (S,)"""
LONG_S = 61.44  # seconds: above this, six windows, a recording is streamed


@dataclass
class Job:
    source: Path
    target: Path
    done: bool = False
    """An earlier run finished it."""


@dataclass
class Done:
    """What a job tells of itself."""

    seconds: float | None = None
    """of audio"""
    notes: dict[str, Any] = field(default_factory=dict)


def plan(inputs: list[str], out: str, overwrite: bool, find=find_audio, suffixes=(".wav", ".flac")) -> list[Job]:
    """Inputs paired with what will be written: OUT itself for one file if it has one of ``suffixes``, else a
    file under the folder OUT with the input's relative name and the first of ``suffixes``.

    An output that exists is work that an earlier run finished: ``done`` in a folder run, refused by name when the
    file was asked for by name. Two inputs with one output are refused.
    """
    found = find(inputs)
    single = len(inputs) == 1 and not Path(inputs[0]).is_dir()
    if Path(out).suffix.lower() in suffixes:
        if not single:
            raise UserError(f"-o {out} is one file, but there are several inputs; give a folder")
        jobs = [Job(found[0][0], Path(out))]
    else:
        jobs = [Job(path, _target(Path(out), name, found, suffixes[0])) for path, name in found]
    clash = next((job for job in jobs if job.source.exists() and job.target.exists()
                  and job.source.resolve() == job.target.resolve()), None)  # fmt: skip
    if clash:
        raise UserError(f"{clash.target}: input and output are the same file; choose another -o")
    there = launcher.finished_before()
    for job in jobs:
        job.done = not overwrite and (job.target.exists() if there is None else str(job.target) in there)
    if single and jobs[0].done:
        raise UserError(f"{jobs[0].target} exists; --overwrite replaces it")
    return jobs


def _target(out: Path, name: Path, found: list[tuple[Path, Path]], suffix: str) -> Path:
    """``a.mp3`` becomes ``a.wav``, unless another input would too: then ``a.mp3.wav``."""
    twins = sum(other.with_suffix("") == name.with_suffix("") for _, other in found)
    if sum(other == name for _, other in found) > 1:
        raise UserError(f"two inputs are named {name}; run them with separate -o")
    return out / (name.with_suffix(suffix) if twins == 1 else name.with_name(name.name + suffix))


def run(
    jobs: list[Job], work: Work, sample_rate: int, record: Record | None = None,
    also: Callable[[Job, Output], None] | None = None, stream: Stream | None = None,
) -> list[str]:  # fmt: skip
    """Do this process's share of the jobs; returns a line for each file that could not be worked on.

    ``also`` is called before a job's audio is written: what it writes beside it is there once the audio is. Long
    recordings go through ``stream``, where there is one, and are written as they come.
    """

    def do(job: Job, on_step: OnStep) -> Done:
        if stream is not None and duration_s(job.source) > LONG_S:
            with spool_audio(job.source, sample_rate) as recording, audio_writer(job.target, sample_rate) as write:
                info = stream(recording, write, on_step)
                return Done(len(recording) / sample_rate, info.list_used())
        out = work(read_audio(job.source, sample_rate), on_step)
        if also is not None:
            also(job, out)
        write_audio(job.target, out.audio, out.sample_rate)
        return Done(len(out.audio) / out.sample_rate, out.info.list_used())

    return each(jobs, do, record)


def recorder(verb: str, arguments: Any) -> Record | None:
    """Where the files of this run are recorded: in OUT, if that is a folder."""
    out = Path(arguments.out)
    if out.suffix.lower() in (".wav", ".flac", ".ddcm"):
        return None
    left_out = ("inputs", "out", "overwrite")
    settings = {key: value for key, value in vars(arguments).items() if value is not None and key not in left_out}
    return Record(out, distributed.rank(), verb, settings)


def each(jobs: list[Job], do: Callable[[Job, OnStep], Done], record: Record | None = None) -> list[str]:
    """``do(job, on_step)`` for this process's share of the jobs, which writes the target; failures as ``run``."""
    mine, of = _mine(jobs), sum(not job.done for job in jobs)
    failures: list[str] = []
    quiet = True if distributed.rank() else None  # rank 0 shows the progress of all
    with tqdm(mine, total=of, unit="file", disable=quiet) as bar:
        for job in bar:
            name = to_one_line(str(job.source))
            bar.set_description(to_one_line(job.source.name))

            def on_step(done: int, total: int, bar=bar) -> None:
                bar.set_postfix_str(f"step {done}/{total}")

            done, status, no_use, begin = Done(), "written", False, time.perf_counter()
            try:
                remove_leftovers(job.target)
                done = do(job, on_step)
            except UserError as error:
                status = str(error)
                status = status if name in status else f"{name}: {status}"
            except OSError as error:
                status, no_use = to_one_line(describe_os_error(error)), error.errno in NO_USE
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                status = f"{name}: {MORE_MEMORY}"
            if status != "written":
                failures.append(status)
            if no_use:
                failures.append(f"{to_one_line(str(job.target.parent))}: nothing can be written there; {NOT_TRIED}")
                return failures
            if record is not None:
                record.add(job.source, job.target, status, done.seconds, time.perf_counter() - begin, done.notes, of)
                if distributed.world_size() > 1 and not bar.disable:
                    bar.n = len(rows(record.folder, record.since)) - 1  # the loop itself adds one
    if record is not None:
        merge(record.folder)
    return failures


def _mine(jobs: list[Job]) -> list[Job]:
    """This process's jobs that are not done, by duration so that all processes end together.

    Processes that were started apart see other files done, so that only the inputs may decide; those that one command
    started have been told what was done, and share out the rest.
    """
    world = distributed.world_size()
    if world == 1:
        return [job for job in jobs if not job.done]
    costs = [0.0 if job.done and launcher.is_child() else duration_s(job.source) for job in jobs]
    return [
        jobs[place] for place in distributed.split_by_cost(costs, distributed.rank(), world) if not jobs[place].done
    ]


def report(verb: str, jobs: list[Job], failures: list[str]) -> int:
    """A line for each failure, and their number where no other process adds them up; the exit code."""
    for line in failures:
        print(f"ddcm {verb}: {line}", file=sys.stderr)
    of = sum(not job.done for job in jobs)
    if failures and not failures[-1].endswith(NOT_TRIED) and not launcher.is_child():
        print(f"{len(failures)} of {of} files failed, {of - len(failures)} written", file=sys.stderr)
    return 2 if failures else 0
