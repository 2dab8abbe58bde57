"""A verb over many files: what is done is skipped, what fails is listed, the rest goes on."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from ddcm import dist
from ddcm.audio import find_audio, read_audio, write_audio
from ddcm.ending import MORE_MEMORY, failed, out_of_memory
from ddcm.errors import UserError, one_line
from ddcm.pipeline import Output

NO_USE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # the next file would fare no better
Work = Callable[[torch.Tensor, Callable[[int, int], None]], Output]
"""(audio (S,), on_step) -> Output"""


@dataclass
class Job:
    source: Path
    target: Path


def plan(inputs: list[str], out: str, overwrite: bool, find=find_audio, suffixes=(".wav", ".flac")) -> list[Job]:
    """Inputs paired with what will be written: OUT itself for one file if it has one of ``suffixes``, else a
    file under the folder OUT with the input's relative name and the first of ``suffixes``.

    An output that exists is work that an earlier run finished: skipped in a folder run, refused by name when
    the file was asked for by name. Two inputs with one output are refused.
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
    if overwrite:
        return jobs
    if single and jobs[0].target.exists():
        raise UserError(f"{jobs[0].target} exists; --overwrite replaces it")
    return [job for job in jobs if not job.target.exists()]


def _target(out: Path, name: Path, found: list[tuple[Path, Path]], suffix: str) -> Path:
    """``a.mp3`` becomes ``a.wav``, unless another input would too: then ``a.mp3.wav``."""
    twins = sum(other.with_suffix("") == name.with_suffix("") for _, other in found)
    if sum(other == name for _, other in found) > 1:
        raise UserError(f"two inputs are named {name}; run them with separate -o")
    return out / (name.with_suffix(suffix) if twins == 1 else name.with_name(name.name + suffix))


def run(jobs: list[Job], work: Work, sample_rate: int, also: Callable[[Job, Output], None] | None = None) -> list[str]:
    """Do this process's share of the jobs; returns a line for each file that could not be worked on.

    ``also`` is called before a job's audio is written: what it writes beside it is there once the audio is.
    """

    def do(job: Job, on_step: Callable[[int, int], None]) -> None:
        out = work(read_audio(job.source, sample_rate), on_step)
        if also is not None:
            also(job, out)
        write_audio(job.target, out.audio, out.sample_rate)

    return each(jobs, do)


def each(jobs: list[Job], do: Callable[[Job, Callable[[int, int], None]], None]) -> list[str]:
    """``do(job, on_step)`` for this process's share of the jobs, which writes the target; failures as ``run``."""
    mine = dist.share(jobs, dist.rank(), dist.world_size())
    failures: list[str] = []
    with tqdm(mine, unit="file", disable=None) as bar:
        for job in bar:
            name = one_line(str(job.source))
            bar.set_description(one_line(job.source.name))

            def on_step(done: int, total: int, bar=bar) -> None:
                bar.set_postfix_str(f"step {done}/{total}")

            try:
                do(job, on_step)
            except UserError as error:
                line = str(error)
                failures.append(line if name in line else f"{name}: {line}")
            except OSError as error:
                failures.append(one_line(failed(error)))
                if error.errno in NO_USE:
                    failures.append(
                        f"{one_line(str(job.target.parent))}: nothing can be written there; the rest was not tried"
                    )
                    break
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                failures.append(f"{name}: {MORE_MEMORY}")
    return failures
