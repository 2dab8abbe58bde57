"""A verb over many files: finished files are skipped, failures are listed, and the rest is processed."""

import errno
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ddcm.audio.search import WRITTEN, find_audio
from ddcm.cli import launcher
from ddcm.cli.outputs import SUFFIXES, describe_file, describe_folder
from ddcm.cli.run_log import open_run_log, read_rows, write_table
from ddcm.errors import UserError, to_one_line
from ddcm.runtime.exit import MORE_MEMORY, describe_os_error, is_out_of_memory
from ddcm.runtime.files import remove_leftovers, resolve_shipped
from ddcm.runtime.progress import OnStep, progress_bar
from ddcm.runtime.ranks import read_launched_rank

log = logging.getLogger(__name__)

FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # every further file would fail too
NOT_TRIED = "the rest was not tried"


@dataclass(frozen=True)
class Job:
    source: Path
    target: Path
    done: bool  # Finished by an earlier run.


@dataclass(frozen=True)
class Done:
    """A finished job, for the run log and the summary."""

    seconds: float | None = None  # of audio
    info: dict[str, Any] = field(default_factory=dict)


Do = Callable[[Job, OnStep], Done]  # Writes the target.


def plan_jobs(inputs: list[str], out: str, overwrite: bool, find=find_audio, suffixes=WRITTEN) -> list[Job]:
    """Pair inputs with outputs: OUT itself for one file if it has one of ``suffixes``, else a file under the folder OUT
    with the input's relative name and the first of ``suffixes``. An output that exists was finished by an earlier run:
    its job is ``done`` in a folder. Raises UserError: no inputs, two inputs with one output, an output that is its
    input, or a single one that exists."""
    sources = find(inputs)
    single = len(inputs) == 1 and not resolve_shipped(inputs[0]).is_dir()
    if Path(out).suffix.lower() in suffixes:
        if not single:
            raise UserError(f"-o {out} is one file, but there are several inputs; give a folder")
        pairs = [(sources[0][0], Path(out))]
    else:
        pairs = [(path, _name_target(Path(out), name, sources, suffixes[0])) for path, name in sources]
    for source, target in pairs:
        if source.exists() and target.exists() and source.resolve() == target.resolve():
            raise UserError(f"{target}: input and output are the same file; choose another -o")
    finished, jobs = launcher.finished_before(), []
    for source, target in pairs:
        exists = target.exists() if finished is None else str(target) in finished
        jobs.append(Job(source, target, exists and not overwrite))
    if single and jobs[0].done:
        raise UserError(f"{jobs[0].target} exists; --overwrite replaces it")
    return jobs


def _name_target(out: Path, name: Path, sources: list[tuple[Path, Path]], suffix: str) -> Path:
    """``a.mp3`` becomes ``a.wav``, unless another input would too: then ``a.mp3.wav``."""
    twins = sum(other.with_suffix("") == name.with_suffix("") for _, other in sources)
    if sum(other == name for _, other in sources) > 1:
        raise UserError(f"two inputs are named {name}; run them with separate -o")
    return out / (name.with_suffix(suffix) if twins == 1 else name.with_name(name.name + suffix))


def process_files(
    verb: str, arguments: Namespace, load: Callable[[], Do], find=find_audio, jobs: list[Job] | None = None
) -> int:
    """The work of ``load()`` for this rank's share of ``jobs``, or of the inputs; the exit code. It is loaded only if
    there is an input to work on. Each failure is logged, and what was written is printed. Raises UserError: as
    ``plan_jobs``, and what ``load`` raises."""
    if jobs is None:
        jobs = plan_jobs(arguments.inputs, arguments.out, arguments.overwrite, find, SUFFIXES[verb])
    run_log, total = open_run_log(verb, arguments), sum(not job.done for job in jobs)
    failures, is_fatal, rank = list[str](), False, read_launched_rank()[0]
    written: list[tuple[float, int]] = []
    share = _choose_share(jobs)
    some = any(os.path.exists(job.source) for job in share)
    with progress_bar(total, shown=some and rank == 0) as bar:  # rank 0 shows the progress of all
        do = load() if some else None
        for job in share:
            bar.begin(to_one_line(job.source.name))
            done, begin = Done(), time.perf_counter()
            try:
                _check_exists(job.source)
                do = do or load()
                remove_leftovers(job.target)
                done, status = do(job, bar.on_step), "written"
                written.append((done.seconds or 0.0, done.info.get("bytes", 0)))
            except (UserError, OSError, RuntimeError, MemoryError) as error:
                status, is_fatal = _describe_failure(error, job), getattr(error, "errno", None) in FATAL
                failures.append(status)
            if is_fatal:
                failures.append(f"{to_one_line(str(job.target.parent))}: nothing can be written there; {NOT_TRIED}")
                break
            if run_log is not None:
                run_log.add(job.source, job.target, status, done.seconds, time.perf_counter() - begin, done.info, total)
            several = run_log is not None and len(share) < total and bar.is_shown
            bar.finish(len(read_rows(run_log.folder, run_log.since)) if several and run_log else None)
    if run_log is not None and not is_fatal:
        write_table(run_log.folder)
    for line in failures:
        log.error("ddcm %s: %s", verb, line)
    if not launcher.is_child():  # its parent adds them up
        if failures and not is_fatal:
            log.error("%d of %d files failed, %d written", len(failures), total, total - len(failures))
        if len(jobs) == len(written) == 1:
            print(describe_file(share[0].target, done.seconds, done.info))
        elif len(jobs) > 1:
            print(describe_folder(Path(arguments.out), written, len(jobs) - total))
    return 2 if failures else 0


def _check_exists(source: Path) -> None:
    try:
        source.stat()
    except FileNotFoundError:
        raise UserError(f"{source}: no such file") from None


def _describe_failure(error: Exception, job: Job) -> str:
    """One line with the name of the file. Errors that are bugs are raised again."""
    name = to_one_line(str(job.source))
    if isinstance(error, OSError):
        return to_one_line(describe_os_error(error))
    if isinstance(error, UserError):
        return str(error) if name in str(error) else f"{name}: {error}"
    if not is_out_of_memory(error):
        raise error
    return f"{name}: {MORE_MEMORY}"


def _choose_share(jobs: list[Job]) -> list[Job]:
    """This rank's jobs that are not done, shared out by duration so that all ranks end together. Ranks that were
    started apart may see different finished files, so the inputs alone decide. Ranks that one command started have the
    same list of finished files, so they share out the rest."""
    rank, world = read_launched_rank()
    if world == 1:
        return [job for job in jobs if not job.done]
    from ddcm.audio.decode import duration_s
    from ddcm.runtime.distributed import split_by_cost

    costs = [0.0 if job.done and launcher.is_child() else duration_s(job.source) for job in jobs]
    share = (jobs[index] for index in split_by_cost(costs, rank, world))
    return [job for job in share if not job.done]
