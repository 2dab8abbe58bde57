"""The command line. Heavy imports live inside the verbs, so that help and tables answer at once."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser, Namespace

from ddcm.cli import codec
from ddcm.cli import serve as serving
from ddcm.cli.options import as_processes, compute_options, device_of, devices_options, set_threads, speaks
from ddcm.errors import UserError
from ddcm.runtime.exit import run_to_exit_code

POCKET, POCKET_CODEBOOK = "checkpoints/pocket", "checkpoints/codebooks/pocket-1024"
ALL, HEARD, DRAWN = ("reconstruct", "transform", "generate"), ("reconstruct", "transform"), ("transform", "generate")
FLAGS: dict[str, tuple[type, tuple[str, ...], str]] = {
    "features": (str, HEARD, "front end: matched, clap, librosa, librosa-high or plain"),
    "raw_features": (bool, HEARD, "true: without the conversion into the VAE's domain"),
    "mode_share": (float, HEARD, "share of the posterior's mode in the latent, the rest is sampled"),
    "limiter": (str, HEARD, "of the latent's deviation: none, strict, loose or balanced"),
    "high_lift": (bool, HEARD, "true: raise high bands that were lost"),
    "vocoder": (str, ALL, "backbone, refined, direct, griffin-lim; with commas: each when the one before fails"),
    "after": (str, ALL, "none, or volume, filter, gentle, protect, limit with commas"),
    "quantizer": (str, ALL, "none, hard or soft"),
    "temperature": (float, ALL, "of the soft quantizer; 0 is the nearest atom"),
    "acts_on": (str, DRAWN, "the codebook's place: input, estimates, late-estimates or output"),
    "strength": (float, ("transform",), "in [0, 1]: 0 keeps the input, 1 keeps only its length"),
    "steps": (int, DRAWN, "denoising steps of the whole schedule"),
    "guidance_scale": (float, DRAWN, "how strongly the prompt acts; 1 is not at all guided"),
    "solver": (str, DRAWN, "ddim, dpm++ or unipc"),
    "n": (int, DRAWN, "candidates, the best by CLAP first; they start from seed, seed + 1, ..."),
}
"""setting of a recipe -> (type, verbs that have it, help)"""


def main(argv: list[str] | None = None) -> int:
    """Run a verb; the exit code: 0, 2 where the user can mend it (one line on stderr), 130 on Ctrl-C, 143 if ended."""
    words = ["ddcm"]

    def work() -> int:
        arguments = _parser().parse_args(argv)
        words.append(arguments.verb)
        given = arguments[arguments.verb]
        code = as_processes(main, given, argv)
        return VERBS[arguments.verb](given) if code is None else code

    return run_to_exit_code(lambda: " ".join(words), work, speaks)


def reconstruct(arguments: Namespace) -> int:
    pipeline, settings = _pipeline("reconstruct", arguments), _settings(arguments)
    settings |= {name: arguments[name] for name in ("recipe", "seed")}
    rate = pipeline.backbone.mel_spec.sample_rate

    def work(audio, on_step):
        return pipeline.reconstruct(audio, rate, on_step=on_step, **settings)

    return _over_files("reconstruct", arguments, rate, work, _streamed("reconstruct", arguments, pipeline, None))


def transform(arguments: Namespace) -> int:
    pipeline, settings = _pipeline("transform", arguments), _settings(arguments)
    settings |= {name: arguments[name] for name in ("recipe", "prompt", "negative_prompt", "seed", "trace")}
    rate = pipeline.backbone.mel_spec.sample_rate

    def work(audio, on_step):
        return pipeline.transform(audio, rate, on_step=on_step, **settings)

    from ddcm.pipeline.stages import Conditioning

    words = Conditioning(arguments.prompt, arguments.negative_prompt)
    stream = None if arguments.trace else _streamed("transform", arguments, pipeline, words)
    return _over_files("transform", arguments, rate, work, stream)


def compress(arguments: Namespace) -> int:
    return codec.compress(arguments, lambda: _load(arguments, quantises=arguments.mode == "vq"))


def decompress(arguments: Namespace) -> int:
    # Which files hold codes of a codebook is only seen when they are opened; the pocket's own costs nothing.
    return codec.decompress(arguments, lambda: _load(arguments, quantises=True))


def generate(arguments: Namespace) -> int:
    from ddcm.cli.report import generate_files

    if arguments.compressed:
        return codec.generate_compressed(arguments, lambda: _load(arguments, quantises=False))
    for name in ("kbps", "quality"):
        if arguments[name] is not None:
            raise UserError(f"--{name} is for generate --compressed")
    names = ("recipe", "prompt", "negative_prompt", "seed", "duration_s", "trace")
    settings = _settings(arguments) | {name: arguments[name] for name in names}
    return generate_files(lambda: _pipeline("generate", arguments), arguments.out, arguments.overwrite, settings)


def compare(arguments: Namespace) -> int:
    from ddcm.cli.report import compare_file

    words = {name: arguments[name] for name in ("prompt", "negative_prompt", "seed")}

    def pipeline():
        # The comparison quantises, so the pocket's own codebook is taken as for any recipe that does.
        return _load(arguments, quantises=True)

    return compare_file(pipeline, arguments.input, arguments.out, arguments.overwrite, words)


def evaluate(arguments: Namespace) -> int:
    from ddcm.cli.report import evaluate_folders

    return evaluate_folders(arguments.references, arguments.estimates, arguments.out, arguments.overwrite)


def serve(arguments: Namespace) -> int:
    return serving.serve(arguments, lambda: _load(arguments, quantises=True))


def inspect(arguments: Namespace) -> int:
    from ddcm.cli.info import inspect

    facts = inspect(arguments.name)
    if arguments.check_heads:
        from ddcm.backbone.head_layout import check_heads

        facts |= check_heads(arguments.name, arguments.check_heads)
    _table([(key, str(value)) for key, value in facts.items()])
    return 0


def recipes(arguments: Namespace) -> int:
    from ddcm.recipes import DEFAULTS, RECIPES, advise, list_settings

    if arguments["for"]:
        _table(advise(arguments["for"]))
        return 0
    for name, recipe in RECIPES.items():
        default = " (default)" if DEFAULTS[recipe.verb] == name else ""
        print(f"{name}: {recipe.verb}{default}\n    {recipe.about}")
        print("    " + ", ".join(f"{key} {value}" for key, value in list_settings(recipe).items()))
    return 0


VERBS = {
    "reconstruct": reconstruct, "transform": transform, "generate": generate, "compress": compress,
    "decompress": decompress, "compare": compare, "evaluate": evaluate, "inspect": inspect,
    "recipes": recipes, "serve": serve,
}  # fmt: skip


def _settings(arguments: Namespace) -> dict[str, Any]:
    """Every flag that is a setting of a recipe; None where the user left it to the recipe."""
    from ddcm.recipes import Recipe

    return {key: arguments[key] for key in Recipe.__dataclass_fields__ if key in arguments}


def _pipeline(verb: str, arguments: Namespace):
    """Settings are checked before anything is loaded."""
    from ddcm.recipes import resolve

    return _load(arguments, resolve(verb, arguments.recipe, **_settings(arguments)).quantizer != "none")


def _load(arguments: Namespace, quantises: bool):
    from ddcm.pipeline import DDCMPipeline

    set_threads(arguments.threads)
    codebook = arguments.codebook
    if codebook is None and quantises and arguments.backbone == POCKET:
        codebook = POCKET_CODEBOOK
    return DDCMPipeline.from_pretrained(
        arguments.backbone, codebook, arguments.batch_size, device=device_of(arguments.device), dtype=arguments.dtype,
        vae_dtype=arguments.vae_dtype, compiled=arguments.compile, heads=arguments.heads, null=arguments.null,
    )  # fmt: skip


def _streamed(verb: str, arguments: Namespace, pipeline, words):
    """How a long recording is worked on in constant memory; None where the recipe must see all of it."""
    from ddcm.pipeline.streaming import can_stream, stream

    setup = pipeline.set_up(verb, arguments.recipe, **_settings(arguments))
    if not can_stream(setup.recipe):
        return None
    return lambda recording, write, on_step: stream(setup, recording, write, words, arguments.seed, on_step)


def _over_files(verb: str, arguments: Namespace, sample_rate: int, work, stream) -> int:
    from ddcm.cli.batch import plan, recorder, report, run
    from ddcm.cli.report import beside

    jobs = plan(arguments.inputs, arguments.out, arguments.overwrite)
    record = recorder(verb, arguments)
    return report(verb, jobs, run(jobs, work, sample_rate, record, lambda job, out: beside(job.target, out), stream))


def _table(rows: list[tuple[str, str]]) -> None:
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        print(f"{key:<{width}}  {value}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="ddcm", description="Audio through a frozen AudioLDM2 and a fitted codebook.")
    verbs = parser.add_subcommands(dest="verb")

    one = _verb(verbs, "reconstruct", "audio -> mel -> VAE -> mel -> vocoder -> audio")
    _file_options(one)
    _recipe_options(one, "reconstruct")
    one.add_argument("--seed", type=int, default=0, help="of the latent's sample, where the recipe draws one")
    _common_options(one)

    one = _verb(verbs, "transform", "noise the input's quantised latent to STRENGTH and denoise it under a prompt")
    _file_options(one)
    _recipe_options(one, "transform")
    _word_options(one)
    one.add_argument("--trace", action="store_true", help="also NAME.trace.png: the estimates on the way")
    _common_options(one)

    one = _verb(verbs, "generate", "a prompt -> audio, with the codebook acting where the recipe says")
    one.add_argument("-o", "--out", required=True, help="a .wav or .flac, or a folder; more of --n are numbered")
    one.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    one.add_argument("--duration_s", type=float, default=10.24, help="seconds of audio")
    _recipe_options(one, "generate")
    _word_options(one)
    one.add_argument("--compressed", action="store_true", help="also NAME.ddcm, which decodes to it without the prompt")
    codec.rate_options(one)
    one.add_argument("--trace", action="store_true", help="also NAME.trace.png: the estimates on the way")
    _common_options(one)

    one = _verb(verbs, "compare", "every recipe on one recording: wavs, metrics.csv, spectrograms.png, report.html")
    one.add_argument("input", help="an audio file")
    one.add_argument("-o", "--out", required=True, help="folder of the report")
    one.add_argument("--overwrite", action="store_true", help="replace a report that is there")
    _word_options(one)
    _common_options(one)

    one = _verb(verbs, "evaluate", "metrics of estimates against references: a folder and a folder, or two files")
    one.add_argument("references", help="folder of the recordings, or one of them")
    one.add_argument("estimates", help="folder of what was made of them, by the same names, or one of them")
    one.add_argument("-o", "--out", type=str, help="a .csv with a row for each file")
    one.add_argument("--overwrite", action="store_true", help="replace a table that is there")

    codec.add_verbs(lambda name, about: _verb(verbs, name, about), _common_options)

    one = _verb(verbs, "inspect", "what a backbone, codebook or .ddcm file is, without running it")
    one.add_argument("name", help="folder, hub name, .ckpt or .ddcm")
    one.add_argument("--check_heads", type=str, help="an audio file: measure which head layout fits the weights")

    one = _verb(verbs, "recipes", "the table of recipes")
    one.add_argument("--for", type=str, help="a kind of audio or a need, such as music: which recipe to take")

    serving.add_verb(lambda name, about: _verb(verbs, name, about), _common_options)
    return parser


def _verb(verbs: Any, name: str, about: str) -> ArgumentParser:
    parser = ArgumentParser(description=about)
    verbs.add_subcommand(name, parser, help=about)
    return parser


def _file_options(parser: ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", help="audio files or folders")
    parser.add_argument("-o", "--out", required=True, help="a folder, or a .wav or .flac for one input")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    devices_options(parser)


def _recipe_options(parser: ArgumentParser, verb: str) -> None:
    """A flag for every setting of a recipe that matters for the verb; left out, the recipe says."""
    parser.add_argument("--recipe", type=str, help="a row of: ddcm recipes")
    for name, (kind, verbs, about) in FLAGS.items():
        if verb in verbs:
            parser.add_argument(f"--{name}", type=kind, help=about)


def _word_options(parser: ArgumentParser) -> None:
    parser.add_argument("--prompt", type=str, default="", help="what it shall be; empty: no text encoder is loaded")
    parser.add_argument("--negative_prompt", type=str, default="", help="what to guide away from")
    parser.add_argument("--seed", type=int, default=0, help="of the noise; the same for every file")


def _common_options(parser: ArgumentParser) -> None:
    parser.add_argument("--backbone", default=POCKET, help="hub name or folder of an AudioLDM2")
    parser.add_argument("--codebook", type=str, help="hub name, exported folder or .ckpt; the pocket has one")
    compute_options(parser)
    parser.add_argument("--heads", default="hub", choices=("hub", "original"), help="head layout of the UNet")
    parser.add_argument("--null", default="trained", choices=("trained", "stock"), help="what no prompt means")
    parser.add_argument("--batch_size", type=int, default=4, help="windows of 10.24 s at a time")
