"""Measure every recipe on the validation clips and write docs/recipes.md.

    python -m benchmarks.recipes --stamp                # as for the page
    python -m benchmarks.recipes --per_kind 2 --diffused_per_kind 1 --out preview.md  # a preview, in two minutes

The clips are those of ``pocket.evaluate`` (``python -m pocket.corpus`` builds them); text recipes get each clip's
caption as prompt, and its length. On a CPU each core runs a process with clips of its own, because models this small
use two cores better apart than together.
"""

import argparse
import math
import multiprocessing
import os
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.recipe_claims import FRONT_ENDS, STRENGTHS, TEXT, Results, median
from benchmarks.recipe_page import render_page
from ddcm import recipes
from ddcm.evaluation.evaluate_files import measure
from ddcm.evaluation.signal_metrics import log_mel_corr
from ddcm.pipeline import DDCMPipeline
from ddcm.recipes import RECIPES
from ddcm.runtime.files import write_atomically
from pocket.batches import validation
from pocket.corpus import SAMPLE_RATE, Corpus


def list_rows() -> list[tuple[str, str, str, dict]]:
    """(name, verb, recipe, flags) of every row."""
    rows = [(name, "reconstruct", name, {}) for name, r in RECIPES.items() if r.verb == "reconstruct"]
    rows += [(f"{name}, raw features", "reconstruct", name, {"raw_features": True}) for name in FRONT_ENDS]
    rows += [(f"input-based, strength {s:g}", "transform", "input-based", {"strength": s}) for s in STRENGTHS]
    return rows + [(name, "generate", name, {}) for name in TEXT]


def measure_clip(pipe: DDCMPipeline, audio: torch.Tensor, caption: str, diffused: bool, steps: int | None) -> dict:
    """Row -> metric -> value, of one clip. Rows that diffuse are left out unless ``diffused``."""
    results, more = {}, {"steps": steps} if steps else {}
    for name, verb, recipe, flags in list_rows():
        if verb == "reconstruct":
            results[name] = measure(audio, pipe.reconstruct(audio, SAMPLE_RATE, recipe, **flags).audio)
        elif diffused and verb == "transform":
            out = pipe.transform(audio, SAMPLE_RATE, recipe=recipe, **flags, **more)
            results[name] = {"log_mel_corr": log_mel_corr(audio, out.audio)}
        elif diffused:
            out = pipe.generate(caption, len(audio) / SAMPLE_RATE, recipe=recipe, **flags, **more)
            scores = pipe.backbone.clap_scores([one.audio for one in (out, *out.others)], caption)
            results[name] = {"log_mel_corr": log_mel_corr(audio, out.audio)}
            results[name] |= {"clap_score": scores[0], "clap_mean": sum(scores) / len(scores)}
    return results


class Worker:
    """The pipeline of a process, which serves for all its clips."""

    def __init__(self, args: argparse.Namespace, threads: int):
        torch.set_num_threads(threads)
        self.pipe = DDCMPipeline.from_pretrained(args.backbone, args.codebook, device=args.device)
        self.steps = args.steps

    def __call__(self, clip, samples, diffused: bool) -> dict:
        return measure_clip(self.pipe, torch.from_numpy(samples), clip.caption, diffused, self.steps)


def _start_worker(*settings) -> None:
    global worker
    worker = Worker(*settings)


def _work(*job) -> dict:
    return worker(*job)


def measure_recipes(args: argparse.Namespace) -> Results:
    """row -> metric -> kind -> values."""
    clips = validation(Corpus(args.corpus), args.seconds, args.per_kind)
    counts: dict[str, int] = {}
    jobs = []
    for clip, samples in clips:
        counts[clip.kind] = counts.get(clip.kind, 0) + 1
        jobs.append((clip, samples, counts[clip.kind] <= args.diffused_per_kind))
    jobs.sort(key=lambda job: -job[2])  # long ones first, so that all processes end at about the same time
    settings = (args, max(1, (os.cpu_count() or 1) // args.processes))
    results: Results = {}
    with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn"), _start_worker, settings) as pool:
        measured = pool.map(_work, *zip(*jobs, strict=True))
        for (clip, *_), rows in zip(jobs, tqdm(measured, total=len(jobs), unit="clip"), strict=True):
            for name, values in rows.items():
                for key, value in values.items():
                    results.setdefault(name, {}).setdefault(key, {}).setdefault(clip.kind, []).append(value)
    return results


def stamp(results: Results, file: Path) -> None:
    """Write each recipe's results into the comment at the end of its first line in ``file``."""
    text = file.read_text(encoding="utf-8")
    for name, recipe in RECIPES.items():
        if recipe.verb == "reconstruct":
            values = [f"{m} {median(results[name][m]):.2f}" for m in ("log_mel_mae_db", "hf_ratio_db")]
        elif recipe.verb == "transform":
            rows = [results[f"{name}, strength {s:g}"]["log_mel_corr"] for s in STRENGTHS]
            values = ["log_mel_corr " + ", ".join(f"{median(row):.2f}" for row in rows)]
            values.append("at strength " + ", ".join(f"{s:g}" for s in STRENGTHS))
        else:
            values = [f"{m} {median(results[name][m]):.2f}" for m in ("log_mel_corr", "clap_score")]
        text, count = re.subn(rf'("{re.escape(name)}": Recipe\()  #.*', rf"\1  # {', '.join(values)}", text)
        assert count == 1, f"{file}: no row for {name}"
    rows = ""
    for name in recipes.MEASURED_DB:
        errors = results[name]["log_mel_mae_db"]
        values = [median(errors, None if kind == "all" else kind) for kind in recipes.MEASURED_KINDS]
        cells = ["math.nan" if math.isnan(value) else f"{value:.2f}" for value in values]
        rows += f'    "{name}": ({", ".join(cells)}),\n'
    text, count = re.subn(r"(\nMEASURED_DB: [^\n]*\n).*?(\}  # fmt: skip)", rf"\1{rows}\2", text, flags=re.DOTALL)
    assert count == 1, f"{file}: no table of medians"
    with write_atomically(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--codebook", default="checkpoints/codebooks/pocket-1024")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--seconds", type=float, default=2.56)
    parser.add_argument("--per_kind", type=int, default=16, help="clips of each kind for reconstruction")
    parser.add_argument("--diffused_per_kind", type=int, default=3, help="of these, for what diffuses")
    parser.add_argument("--steps", type=int, default=10, help="of recipes that diffuse; 0 for their own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, help="default: one for each core, or one on a GPU")
    parser.add_argument("--out", type=Path, default=Path("docs/recipes.md"))
    parser.add_argument("--stamp", action="store_true", help="also put the results beside the rows of ddcm/recipes.py")
    args = parser.parse_args()
    args.processes = args.processes or (os.cpu_count() if args.device == "cpu" else None) or 1
    results = measure_recipes(args)
    with write_atomically(args.out) as temporary:
        temporary.write_text(
            render_page(results, list_rows(), args.backbone, args.seconds, args.steps or None), encoding="utf-8"
        )
    if args.stamp:
        stamp(results, Path(recipes.__file__))
    print(args.out)


if __name__ == "__main__":
    main()
