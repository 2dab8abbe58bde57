"""Find how to spend steps and bits on a backbone: makes the table for ``--kbps``.

    python -m benchmarks.schedules --audio FOLDER [--backbone NAME] [--out ddcm/codec/schedules.json]
    python -m benchmarks.schedules --corpus runs/corpus       # the training clips that the pocket was made from

The start of a search follows from one measurement. For each number of the latent, a step from timestep t to s costs
(SNR(s) - SNR(t)) / 2 nats times the squared error of the denoiser's estimate at t (DiffC, arXiv 2206.08889). The sum is
the cost of a path from noise to any timestep. A good start is the schedule whose steps all cost the same and that ends
where the rate is spent. From there the search moves the ends and exponents of the
``ddcm.codec.step_schedule.ParametricSchedule`` one at a time, while the mels of coded clips get nearer to the
recordings. All clips share their UNet calls. The table is written after each rate and number of steps, and a rerun goes
on from there. Use the table with ``compress --schedules FILE``.
"""

import argparse
import functools
import json
import math
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.trial import Trial, cut_clips, make_trial, read_training_clips
from ddcm.audio.search import find_audio
from ddcm.backbone import load
from ddcm.codec.rate_control import SHAPE, SHIPPED
from ddcm.codec.step_schedule import ParametricSchedule, expand
from ddcm.diffusion.timesteps import add_noise, quadratic
from ddcm.errors import UserError
from ddcm.runtime.files import write_atomically

EVEN = ParametricSchedule(30, 16, 0, 1)
EFFICIENCY = 0.8  # of top-M with signs: bits that the best code would need, over its own
FIRSTS = (999, 800)  # first timesteps of a start: an undertrained denoiser cannot use the noisiest timesteps
MOVES = {"last": (1.35, 1.15), "power": (4, 2), "growth": (6, 3), "first": (100, 50)}  # coarse, then fine


def measure_denoiser(trial: Trial) -> dict[int, float]:
    """Mean squared error of the denoiser's estimate of z at a few timesteps."""
    denoise = trial.backbone.denoiser("", "", 1.0, trial.header.cache_interval)
    noise = torch.randn(trial.z.shape, generator=torch.Generator().manual_seed(0)).to(trial.z)
    noised = {t: add_noise(trial.z, noise, float(trial.backbone.alphas_cumprod[t])) for t in quadratic(12)}
    return {t: float((denoise(x, t) - trial.z).square().mean()) for t, x in noised.items()}


def list_costs(trial: Trial, errors_at: dict[int, float], first: int) -> torch.Tensor:
    """kbps (first + 1,) that it takes to get from noise at ``first`` to each timestep."""
    alphas, at = trial.backbone.alphas_cumprod, sorted(errors_at)
    snr, errors = alphas / (1 - alphas), [errors_at[t] for t in at]
    known, steps = torch.tensor(errors, dtype=torch.float64).log(), torch.arange(first + 1, dtype=torch.float64)
    place = torch.tensor([sum(t <= step for t in at) - 1 for step in range(first + 1)]).clamp(max=len(at) - 2)
    low, high = torch.tensor(at)[place], torch.tensor(at)[place + 1]
    error = (known[place] + (steps - low) / (high - low) * (known[place + 1] - known[place])).exp()
    nats = 0.5 * (snr[:first] - snr[1 : first + 1]) * 0.5 * (error[:-1] + error[1:])
    cost = torch.cat([nats.flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.float64)])
    return cost * trial.header.latent_size / math.log(2) / 1000 / trial.seconds


def equal_cost_schedule(cost: torch.Tensor, kbps: float, steps: int) -> ParametricSchedule:
    """The parametric schedule nearest to equal costs of all steps that ends where ``kbps`` are spent."""
    first = len(cost) - 1
    shares = torch.linspace(0, 1, steps, dtype=torch.float64) * kbps * EFFICIENCY
    ideal = torch.tensor([int((cost - share).abs().argmin()) for share in shares])
    last = min(int(ideal[-1]), first - steps + 1)
    schedules = [ParametricSchedule(steps, power, 0, 1, first, last) for power in range(12, 81, 2)]
    return min(schedules, key=lambda schedule: float((torch.tensor(expand(schedule).timesteps) - ideal).abs().sum()))


def move_parameter(schedule: ParametricSchedule, name: str, stride: float, sign: int) -> ParametricSchedule | None:
    """One parameter a stride further; None beyond its range."""
    value = getattr(schedule, name)
    value = round((value + 8) * stride**sign - 8) if name == "last" else value + sign * int(stride)
    other = replace(schedule, **{name: max(value, 0)})
    fits = 1 <= other.power <= 255 and other.growth <= 255 and 0 <= other.last <= other.first - other.steps + 1 <= 999
    return other if fits and other.first <= 999 and other != schedule else None


def search(
    loss: Callable[[ParametricSchedule], float], begin: list[ParametricSchedule], most: int
) -> tuple[ParametricSchedule, float, int]:
    """Coordinate search from the best of ``begin``: at most ``most`` schedules; (best, its loss, number tried)."""
    loss = functools.cache(loss)
    best = min(begin, key=loss)
    for size in (0, 1):
        better = True
        while better:
            better = False
            for name, strides in MOVES.items():
                for sign in (1, -1):
                    other = move_parameter(best, name, strides[size], sign)
                    if other is None or loss.cache_info().currsize >= most:
                        continue
                    if loss(other) < loss(best):
                        best, better = other, True
                        break
    return best, loss(best), loss.cache_info().currsize


def solve_row(args: argparse.Namespace, kbps: float, steps: int) -> dict:
    """A row of the table."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // args.workers))
    trial = _make_trial(
        args.backbone, args.corpus, args.audio, args.seconds, args.clips, args.book, args.device, args.cache_interval
    )
    with torch.no_grad():
        begin = [
            ParametricSchedule(steps, former["power"], former["growth"], 1, former["first"], former["last"])
            for former in args.former if (former["kbps"], former["steps"]) == (kbps, steps)
            and former.get("interval", 1) in (1, args.cache_interval)
        ] or _guess(trial, kbps, steps)  # fmt: skip
        best, loss, tried = search(lambda schedule: trial.loss(schedule, kbps), begin, args.most)
        even = trial.loss(replace(EVEN, steps=steps), kbps)
    shape = {name: getattr(best, name) for name in SHAPE}
    cached = {} if args.cache_interval == 1 else {"interval": args.cache_interval}
    row = dict(kbps=kbps, steps=steps, **cached, **shape, loss=round(loss, 4), even=round(even, 4))
    return row | dict(clips=len(trial.z), tried=tried)


def _guess(trial: Trial, kbps: float, steps: int) -> list[ParametricSchedule]:
    errors = measure_denoiser(trial)
    return [equal_cost_schedule(list_costs(trial, errors, first), kbps, steps) for first in FIRSTS]


@functools.cache
def _make_trial(
    backbone_name, corpus, audio, seconds: float, count: int, book: str, device: str, interval: int
) -> Trial:
    backbone = load(backbone_name, device=device)
    if corpus:
        clips = read_training_clips(corpus, seconds, count)
    else:
        paths = (path for path, _ in find_audio([audio]))
        clips = cut_clips(paths, seconds, count, backbone.mel_spec.sample_rate)
    if not clips:
        raise UserError(f"no recording of {seconds} s and more")
    with torch.no_grad():
        return make_trial(backbone, clips, book, interval)


def table(rows: list[dict]) -> str:
    """The rows, beside the best even schedule of any number of steps at the rate."""
    head = ("kbps", "steps", "interval", *SHAPE, "loss, dB", "even, dB", "less than the best even one")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        fixed = min(other["even"] for other in rows if other["kbps"] == row["kbps"])
        shape = [f"{row[name] / 16:g}" if name in ("power", "growth") else str(row[name]) for name in SHAPE]
        cells = [
            f"{row['kbps']:g}",
            str(row["steps"]),
            str(row.get("interval", 1)),
            *shape,
            f"{row['loss']:.3f}",
            f"{row['even']:.3f}",
        ]
        lines.append("| " + " | ".join([*cells, f"{100 * (1 - row['loss'] / fixed):.0f} %"]) + " |")
    return "\n".join(lines)


def _name(row: dict) -> tuple[float, int, int]:
    return row["kbps"], row["steps"], row.get("interval", 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--audio", type=Path, help="a folder of recordings")
    parser.add_argument("--corpus", type=Path, help="or a corpus of pocket.corpus: its training clips")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.25, 0.5, 1.0, 2.0, 4.0])
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 30])
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.56)
    parser.add_argument("--most", type=int, default=14, help="schedules that are tried for a row")
    parser.add_argument(
        "--from_former", action="store_true", help="begin with the rows of the weights that had this name before"
    )
    parser.add_argument("--again", action="store_true", help="solve its own rows again, and begin with what they are")
    parser.add_argument("--book", default="hadamard")
    parser.add_argument("--cache_interval", type=int, default=1, help="of the UNet: its rows stand beside those of 1")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; 1 for a GPU")
    args = parser.parse_args()
    if not args.corpus and not args.audio:
        parser.error("give --audio or --corpus")
    digest = load(args.backbone).digest
    entries = json.loads(args.out.read_text()) if args.out.exists() else []
    entry = next((e for e in entries if e["backbone"] == digest), None)
    former = next((e for e in entries if e["name"] == args.backbone and e["backbone"] != digest), {"rows": []})
    args.former = former["rows"] if args.from_former else []
    if entry is None:
        entry = {"backbone": digest, "name": args.backbone, "rows": []}
        # Its own rows replace guesses, and those of the weights that had this name before.
        entries = [entry, *(e for e in entries if e["backbone"] and e["name"] != args.backbone)]
    own = [row for row in entry["rows"] if row.get("interval", 1) == args.cache_interval]
    done = set() if args.again else {(row["kbps"], row["steps"]) for row in own}
    args.former = own if args.again else args.former
    if args.cache_interval != 1:
        args.former = [*args.former, *entry["rows"]]  # begin with those without a cache
    todo = [(kbps, steps) for steps in sorted(args.steps, reverse=True) for kbps in args.rates]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.workers, context) as pool:
        futures = [pool.submit(solve_row, args, *job) for job in todo if job not in done]
        for future in as_completed(futures):
            print(new := future.result(), flush=True)
            others = [row for row in entry["rows"] if _name(row) != _name(new)]
            entry["rows"] = sorted([*others, new], key=_name)
            with write_atomically(args.out) as temporary:
                temporary.write_text(json.dumps(entries, indent=1) + "\n")
    print(table(entry["rows"]))


if __name__ == "__main__":
    main()
