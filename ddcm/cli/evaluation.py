"""``compare``, ``evaluate`` and ``recipes`` on the command line: tables and reports."""

import logging
from pathlib import Path

from jsonargparse import Namespace

from ddcm.cli import options
from ddcm.errors import UserError, to_one_line
from ddcm.recipes import DEFAULTS, RECIPES, advise, list_settings

log = logging.getLogger(__name__)


def compare(arguments: Namespace) -> int:
    """every recipe on one recording: wavs, metrics.csv, spectrograms.png, report.html"""
    from tqdm import tqdm

    from ddcm.audio.files import read_audio
    from ddcm.evaluation.compare import compare as compare_recipes
    from ddcm.evaluation.html_report import check_target, write_report
    from ddcm.runtime.memory import describe_machine

    folder = Path(arguments.out)
    check_target(folder, arguments.overwrite)
    pipeline = options.load_pipeline(arguments, quantises=True)  # some recipes do
    backbone, codebook, rate = pipeline.backbone, pipeline.codebook, pipeline.backbone.mel_spec.sample_rate
    audio = read_audio(arguments.input, rate)
    conditioning = {name: arguments[name] for name in ("prompt", "negative_prompt", "seed")}
    with tqdm(unit="recipe", disable=None) as bar:

        def on_case(name: str, number: int, total: int) -> None:
            bar.total = total
            bar.update(number - bar.n)
            bar.set_description(name)

        entries = compare_recipes(pipeline, audio, conditioning, on_case)
        bar.update((bar.total or 0) - bar.n)
    name = to_one_line(Path(arguments.input).name)
    facts = {
        "input": f"{name}, {len(audio) / rate:.2f} s",
        "backbone": f"{backbone.name} (latents {backbone.latent_digest})",
        "codebook": "none" if codebook is None else f"{codebook.quantizer.codebook_size} atoms",
        "prompt": arguments.prompt or "none",
        "machine": describe_machine(str(backbone.device)),
    }
    write_report(folder, f"{name}: every recipe", entries, rate, facts)
    print(folder / "report.html")
    return 0


def evaluate(arguments: Namespace) -> int:
    """metrics of estimates against references: a folder and a folder, or two files"""
    from ddcm.evaluation.evaluate_files import evaluate_pairs, pair_files, summarize, write_csv

    if arguments.out is not None:
        options.refuse_existing([Path(arguments.out)], arguments.overwrite)
        if not arguments.out.lower().endswith(".csv"):
            raise UserError(f"-o {arguments.out}: give a name that ends in .csv")
    rows, failures = evaluate_pairs(pair_files(arguments.references, arguments.estimates))
    if rows:
        if arguments.out is not None:
            write_csv(Path(arguments.out), rows)
        print(f"{'metric':<15} {'mean':>9} {'median':>9}  worst file")
        for name, mean, median, worst in summarize(rows):
            print(f"{name:<15} {mean:>9.3f} {median:>9.3f}  {worst}")
    for line in failures:
        log.error("ddcm evaluate: %s", line)
    if failures:
        log.error("%d of %d files failed", len(failures), len(rows) + len(failures))
    return 2 if failures else 0


def recipes(arguments: Namespace) -> int:
    """the table of recipes"""
    if arguments["for"]:
        options.print_table(advise(arguments["for"]))
        return 0
    for name, recipe in RECIPES.items():
        default = " (default)" if DEFAULTS[recipe.verb] == name else ""
        print(f"{name}: {recipe.verb}{default}\n    {recipe.about}")
        print("    " + ", ".join(f"{key} {value}" for key, value in list_settings(recipe).items()))
    return 0


VERBS: options.Verbs = {
    compare: (
        options.flag("input", help="an audio file"),
        options.flag("-o", "--out", required=True, help="folder of the report"),
        options.flag("--overwrite", action="store_true", help="replace a report that is there"),
        options.take(options.PromptSettings),
        options.take(options.ModelSettings),
    ),
    evaluate: (
        options.flag("references", help="folder of the recordings, or one of them"),
        options.flag("estimates", help="folder of what was made of them, by the same names, or one of them"),
        options.flag("-o", "--out", type=str, help="a .csv with a row for each file"),
        options.flag("--overwrite", action="store_true", help="replace a table that is there"),
    ),
    recipes: (options.flag("--for", type=str, help="a kind of audio or a need, such as music: which recipe to take"),),
}
