"""``compare``, ``evaluate`` and ``recipes`` on the command line: tables and reports."""

import logging
from pathlib import Path

from jsonargparse import Namespace

from ddcm.cli import options
from ddcm.errors import UserError, to_one_line
from ddcm.recipes import DEFAULTS, RECIPES, advise, list_settings
from ddcm.runtime.progress import progress_bar

log = logging.getLogger(__name__)


def compare(arguments: Namespace) -> int:
    """every recipe on one recording: wavs, metrics.csv, spectrograms.png, report.html; --blind: a listening test

    ddcm compare examples/bird.flac -o out/bird
    ddcm compare examples/speech.flac -o out/speech --prompt "a voice" --steps 10 --blind
    """
    options.refuse_missing(arguments.input)
    with progress_bar() as bar:
        from ddcm.audio.files import read_audio
        from ddcm.evaluation.blind_page import write_blind_page
        from ddcm.evaluation.compare import compare as compare_recipes
        from ddcm.evaluation.html_report import check_target, write_report
        from ddcm.runtime.memory import describe_machine

        folder = Path(arguments.out)
        check_target(folder, arguments.overwrite)
        pipeline = options.load_pipeline(arguments, quantises=True)  # some recipes do
        backbone, codebook, rate = pipeline.backbone, pipeline.codebook, pipeline.backbone.mel_spec.sample_rate
        audio = read_audio(arguments.input, rate)
        conditioning = {name: arguments[name] for name in ("prompt", "negative_prompt", "seed")}

        def on_case(name: str, number: float, total: int) -> None:
            bar.begin(name)
            bar.on_step(round(number, 2), total)

        entries = compare_recipes(pipeline, audio, conditioning, on_case, arguments.steps)
        bar.begin("report")
        name = to_one_line(Path(arguments.input).name)
        facts = {
            "input": f"{name}, {len(audio) / rate:.2f} s",
            "backbone": f"{backbone.name} (latents {backbone.latent_digest})",
            "codebook": "none" if codebook is None else f"{codebook.quantizer.codebook_size} atoms",
            "prompt": arguments.prompt or "none",
            "steps": "each recipe's own" if arguments.steps is None else f"{arguments.steps} where a recipe diffuses",
            "machine": describe_machine(str(backbone.device)),
        }
        write_report(folder, f"{name}: every recipe", entries, rate, facts)
        bar.finish()
    print(folder / "report.html")
    if arguments.blind:
        test_id = f"{name}, seed {arguments.seed}"
        systems = write_blind_page(folder / "blind.html", test_id, entries, rate)
        print(f"{folder / 'blind.html'}  {len(systems)} sounds, the hidden reference and an anchor")
    return 0


def evaluate(arguments: Namespace) -> int:
    """metrics of estimates against references: a folder and a folder, or two files; or --answers of a listening test

    ddcm evaluate examples out/music -o out/metrics.csv
    ddcm evaluate --answers answers-1.csv answers-2.csv
    """
    if arguments.answers:
        return _evaluate_answers(arguments)
    if arguments.references is None or arguments.estimates is None:
        raise UserError("give references and estimates, or --answers with the files of a listening test")
    options.refuse_missing(arguments.references, arguments.estimates)
    _check_table(arguments, (".csv", ".jsonl"))
    with progress_bar(leave=False) as bar:
        from ddcm.evaluation.evaluate_files import evaluate_pairs, pair_files, summarize, write_csv, write_jsonl

        bar.begin("evaluate")
        rows, failures = evaluate_pairs(pair_files(arguments.references, arguments.estimates), bar.on_step)
    if rows:
        print(f"{'metric':<15} {'mean':>9} {'median':>9}  worst file")
        for name, mean, median, worst in summarize(rows):
            print(f"{name:<15} {mean:>9.3f} {median:>9.3f}  {worst}")
        if arguments.out is not None:
            write = write_jsonl if arguments.out.lower().endswith(".jsonl") else write_csv
            write(Path(arguments.out), rows)
            print(f"{arguments.out}: {len(rows)} rows")
    for line in failures:
        log.error("ddcm evaluate: %s", line)
    if failures:
        log.error("%d of %d files failed", len(failures), len(rows) + len(failures))
    return 2 if failures else 0


def _evaluate_answers(arguments: Namespace) -> int:
    from ddcm.evaluation.answers import find_excluded, read_answers, sum_up
    from ddcm.evaluation.evaluate_files import write_csv

    if arguments.references is not None:
        raise UserError("--answers takes no references and estimates: the answers are the scores")
    _check_table(arguments, (".csv",))
    answers = read_answers([Path(path) for path in arguments.answers])
    excluded = find_excluded(answers)
    listeners = {answer.listener for answer in answers}
    for listener, reason in sorted(excluded.items()):
        print(f"excluded: {to_one_line(listener)} {reason}")
    print(f"{len(listeners) - len(excluded)} of {len(listeners)} listeners; 95 % confidence intervals by Student's t")
    ratings = sum_up([answer for answer in answers if answer.listener not in excluded])
    for each in ratings:
        print(f"{each.stimulus:<30} {each.mean:>6.1f} ± {each.half_width:<6.1f} {each.listeners} listeners")
    if not ratings:
        raise UserError("no listener is left: every one missed the hidden reference")
    if arguments.out is not None:
        write_csv(Path(arguments.out), [rating.to_row() for rating in ratings])
    return 0


def _check_table(arguments: Namespace, suffixes: tuple[str, ...]) -> None:
    if arguments.out is not None:
        options.refuse_existing([Path(arguments.out)], arguments.overwrite)
        if not arguments.out.lower().endswith(suffixes):
            raise UserError(f"-o {arguments.out}: give a name that ends in {' or '.join(suffixes)}")


def recipes(arguments: Namespace) -> int:
    """the table of recipes

    ddcm recipes
    ddcm recipes --for speech
    """
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
        options.out("folder of the report"),
        options.flag("--overwrite", action="store_true", help="replace a report that is there"),
        options.flag("--blind", action="store_true", help="also blind.html: a listening test (MUSHRA) of these sounds"),
        options.flag("--steps", type=int, help="of every recipe that diffuses; default: each recipe's own"),
        options.take(options.PromptSettings),
        options.take(options.ModelSettings),
    ),
    evaluate: (
        options.flag("references", nargs="?", help="folder of the recordings, or one of them"),
        options.flag("estimates", nargs="?", help="folder of what was made of them, by the same names, or one of them"),
        options.flag(
            "--answers", nargs="+", help="files of answers to a listening test (compare --blind): sum them up"
        ),
        options.out("a .csv or .jsonl (VERSA's form) with a row for each file"),
        options.flag("--overwrite", action="store_true", help="replace a table that is there"),
    ),
    recipes: (options.flag("--for", type=str, help="a kind of audio or a need, such as music: which recipe to take"),),
}
