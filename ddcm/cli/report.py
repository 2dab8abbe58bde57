"""What the command line writes and prints around the verbs that are not one file in, one file out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ddcm.audio.files import read_audio, write_audio
from ddcm.errors import UserError, to_one_line
from ddcm.evaluation.folder import evaluate_pairs, pair_files, summarize, write_csv
from ddcm.evaluation.report import check_target, slug, write_report
from ddcm.pipeline import DDCMPipeline
from ddcm.pipeline.output import Output
from ddcm.recipes import resolve
from ddcm.runtime.files import write_atomically
from ddcm.runtime.memory import describe_machine


def beside(target: Path, out: Output) -> None:
    """What goes with an output: ``NAME.trace.png`` of a trace, and a line where another vocoder had to stand in."""
    if out.trace:
        from ddcm.evaluation.plots import draw_sheet

        # Early estimates are of noise: they are drawn as they are, up to the length of the audio.
        frames = -(-len(out.audio) * 100 // out.sample_rate)
        draw_sheet(target.with_suffix(".trace.png"), [(f"timestep {t}", mel[0, 0, :frames]) for t, mel in out.trace])
    for reason in out.info.vocoder_failed:
        print(f"{target.name}: vocoder {out.info.vocoder} was used; {reason}", file=sys.stderr)


def generate_files(load: Callable[[], DDCMPipeline], out: str, overwrite: bool, settings: dict[str, Any]) -> int:
    """Every candidate as a file, best first, and for several of them their scores as a table and ``NAME.json``."""
    n = resolve("generate", settings["recipe"], n=settings["n"]).n
    targets = names(out, settings["prompt"], n)
    scores = targets[0].with_suffix(".json")
    taken = [path for path in [*targets, *([scores] if n > 1 else [])] if path.exists()]
    if taken and not overwrite:
        raise UserError(f"{taken[0]} exists; --overwrite replaces it")
    pipeline = load()
    with tqdm(desc="steps", disable=None) as bar:

        def on_step(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        best = pipeline.generate(on_step=on_step, **settings)
    ranked = [best, *best.others]
    rows = []
    for target, candidate in zip(targets, ranked, strict=True):
        beside(target, candidate)
        write_audio(target, candidate.audio, candidate.sample_rate)
        rows.append({"file": target.name, "seed": candidate.info.seed, "clap_score": candidate.info.clap_score})
    if n > 1:
        with write_atomically(scores) as temporary:
            temporary.write_text(json.dumps({"prompt": settings["prompt"], "candidates": rows}, indent=2) + "\n")
        for row in rows:
            score = "not scored: no prompt" if row["clap_score"] is None else f"CLAP score {row['clap_score']:.4f}"
            print(f"{row['file']}  seed {row['seed']}  {score}")
    return 0


def names(out: str, prompt: str, n: int) -> list[Path]:
    """Files for n candidates: OUT itself or PROMPT.wav in the folder OUT, then NAME-2, NAME-3, ..."""
    first = Path(out)
    if first.suffix.lower() not in (".wav", ".flac"):
        first = first / f"{slug(prompt or 'unconditional')}.wav"
    return [first, *(first.with_name(f"{first.stem}-{i}{first.suffix}") for i in range(2, n + 1))]


def compare_file(
    load: Callable[[], DDCMPipeline], source: str, out: str, overwrite: bool, words: dict[str, Any]
) -> int:
    """The report of one recording in the folder OUT; says where it is."""
    from ddcm.evaluation.compare import compare

    folder = Path(out)
    check_target(folder, overwrite)
    pipeline = load()
    rate = pipeline.backbone.mel_spec.sample_rate
    audio = read_audio(source, rate)
    with tqdm(unit="recipe", disable=None) as bar:

        def on_case(name: str, number: int, of: int) -> None:
            bar.total = of
            bar.update(number - bar.n)
            bar.set_description(name)

        entries = compare(pipeline, audio, words, on_case)
        bar.update((bar.total or 0) - bar.n)
    codebook = pipeline.codebook
    name = to_one_line(Path(source).name)
    facts = {
        "input": f"{name}, {len(audio) / rate:.2f} s",
        "backbone": f"{pipeline.backbone.name} (latents {pipeline.backbone.latent_digest})",
        "codebook": "none" if codebook is None else f"{codebook.quantizer.codebook_size} atoms",
        "prompt": words.get("prompt") or "none",
        "machine": describe_machine(str(pipeline.backbone.device)),
    }
    write_report(folder, f"{name}: every recipe", entries, rate, facts)
    print(folder / "report.html")
    return 0


def evaluate_folders(references: str, estimates: str, out: str | None, overwrite: bool) -> int:
    """A row for each pair into OUT, and mean, median and worst file of each metric on the terminal."""
    target = None if out is None else Path(out)
    if target is not None and target.exists() and not overwrite:
        raise UserError(f"{target} exists; --overwrite replaces it")
    if target is not None and target.suffix.lower() != ".csv":
        raise UserError(f"-o {target}: give a name that ends in .csv")
    rows, failures = evaluate_pairs(pair_files(references, estimates))
    if rows:
        if target is not None:
            write_csv(target, rows)
        print(f"{'metric':<15} {'mean':>9} {'median':>9}  worst file")
        for name, mean, median, worst in summarize(rows):
            print(f"{name:<15} {mean:>9.3f} {median:>9.3f}  {worst}")
    for line in failures:
        print(f"ddcm evaluate: {line}", file=sys.stderr)
    if failures:
        print(f"{len(failures)} of {len(rows) + len(failures)} files failed", file=sys.stderr)
    return 2 if failures else 0
