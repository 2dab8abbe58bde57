"""The command line. Heavy imports live inside the verbs, so that help and tables answer at once."""

from __future__ import annotations

import os
import sys
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from ddcm import cli_codec
from ddcm.errors import UserError

POCKET, POCKET_CODEBOOK = "checkpoints/pocket", "checkpoints/codebooks/pocket-1024"
DTYPES = ("float32", "float16", "bfloat16")


def main(argv: list[str] | None = None) -> int:
    """Run a verb; the exit code: 0, 2 where the user can mend it (one line on stderr), 130 on Ctrl-C."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    verb = arguments.verb
    try:
        return VERBS[verb](arguments[verb])
    except UserError as error:
        print(f"ddcm {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"ddcm {verb}: interrupted; finished files stay, the same command goes on", file=sys.stderr)
        return 130


def reconstruct(arguments: Namespace) -> int:
    pipeline, settings = _pipeline("reconstruct", arguments), _settings(arguments)
    rate = pipeline.backbone.mel_spec.sample_rate

    def work(audio, on_step):
        return pipeline.reconstruct(audio, rate, arguments.recipe, **settings)

    return _over_files("reconstruct", arguments, rate, work)


def transform(arguments: Namespace) -> int:
    pipeline, settings = _pipeline("transform", arguments), _settings(arguments)
    settings |= {name: arguments[name] for name in ("recipe", "prompt", "negative_prompt", "seed")}
    rate = pipeline.backbone.mel_spec.sample_rate

    def work(audio, on_step):
        return pipeline.transform(audio, rate, on_step=on_step, **settings)

    return _over_files("transform", arguments, rate, work)


def inspect(arguments: Namespace) -> int:
    from ddcm.inspect import check_heads, inspect

    facts = inspect(arguments.name)
    if arguments.check_heads:
        facts |= check_heads(arguments.name, arguments.check_heads)
    _table([(key, str(value)) for key, value in facts.items()])
    return 0


def recipes(arguments: Namespace) -> int:
    from dataclasses import asdict

    from ddcm.recipes import DEFAULTS, RECIPES

    for name, recipe in RECIPES.items():
        row = asdict(recipe)
        default = " (default)" if DEFAULTS[recipe.verb] == name else ""
        print(f"{name}: {row.pop('verb')}{default}\n    {row.pop('about')}")
        relevant = row if recipe.verb == "transform" else {name: row[name] for name in ("quantizer", "vocoder")}
        print("    " + ", ".join(f"{key} {value}" for key, value in relevant.items()))
    return 0


VERBS = {"reconstruct": reconstruct, "transform": transform, "inspect": inspect, "recipes": recipes}
VERBS |= {"compress": cli_codec.compress, "decompress": cli_codec.decompress, "generate": cli_codec.generate}


def _settings(arguments: Namespace) -> dict[str, Any]:
    """Every flag that is a setting of a recipe; None where the user left it to the recipe."""
    from ddcm.recipes import Recipe

    return {key: arguments[key] for key in Recipe.__dataclass_fields__ if key in arguments}


def _pipeline(verb: str, arguments: Namespace):
    """Settings are checked before anything is loaded."""
    from ddcm.recipes import resolve

    recipe = resolve(verb, arguments.recipe, **_settings(arguments))

    import torch

    from ddcm.pipeline import DDCMPipeline

    # Under torchrun each process takes a GPU of its own.
    default = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    codebook = arguments.codebook
    if codebook is None and recipe.quantizer != "none" and arguments.backbone == POCKET:
        codebook = POCKET_CODEBOOK
    return DDCMPipeline.from_pretrained(
        arguments.backbone, codebook, arguments.batch_size, device=arguments.device or default, dtype=arguments.dtype,
        heads=arguments.heads, null=arguments.null,
    )  # fmt: skip


def _over_files(verb: str, arguments: Namespace, sample_rate: int, work) -> int:
    from ddcm.batch import plan, run

    jobs = plan(arguments.inputs, arguments.out, arguments.overwrite)
    failures = run(jobs, work, sample_rate)
    for line in failures:
        print(f"ddcm {verb}: {line}", file=sys.stderr)
    if failures:
        print(f"{len(failures)} of {len(jobs)} files failed, {len(jobs) - len(failures)} written", file=sys.stderr)
    return 2 if failures else 0


def _table(rows: list[tuple[str, str]]) -> None:
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        print(f"{key:<{width}}  {value}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="ddcm", description="Audio through a frozen AudioLDM2 and a fitted codebook.")
    verbs = parser.add_subcommands(dest="verb")

    one = _verb(verbs, "reconstruct", "audio -> mel -> VAE -> mel -> vocoder -> audio")
    _file_options(one)
    _common_options(one)

    one = _verb(verbs, "transform", "noise the input's quantised latent to STRENGTH and denoise it under a prompt")
    _file_options(one)
    one.add_argument("--strength", type=float, help="in [0, 1]: 0 keeps the input, 1 keeps only its length")
    one.add_argument("--prompt", type=str, default="", help="what to turn it into; empty: no text encoder is loaded")
    one.add_argument("--negative_prompt", type=str, default="", help="what to guide away from")
    one.add_argument("--steps", type=int, help="denoising steps of the whole schedule")
    one.add_argument("--guidance_scale", type=float, help="how strongly the prompt acts; 1 is not at all guided")
    one.add_argument("--solver", type=str, help="ddim or dpm++")
    one.add_argument("--seed", type=int, default=0, help="of the noise; the same for every file")
    _common_options(one)

    cli_codec.add_verbs(lambda name, about: _verb(verbs, name, about), _common_options)

    one = _verb(verbs, "inspect", "what a backbone, codebook or .ddcm file is, without running it")
    one.add_argument("name", help="folder, hub name, .ckpt or .ddcm")
    one.add_argument("--check_heads", type=str, help="an audio file: measure which head layout fits the weights")

    _verb(verbs, "recipes", "the table of recipes")
    return parser


def _verb(verbs: Any, name: str, about: str) -> ArgumentParser:
    parser = ArgumentParser(description=about)
    verbs.add_subcommand(name, parser, help=about)
    return parser


def _file_options(parser: ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", help="audio files or folders")
    parser.add_argument("-o", "--out", required=True, help="a folder, or a .wav or .flac for one input")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    parser.add_argument("--recipe", type=str, help="a row of: ddcm recipes")
    parser.add_argument("--quantizer", type=str, help="none or hard; the recipe says")
    parser.add_argument("--vocoder", type=str, help="backbone or refined; the recipe says")


def _common_options(parser: ArgumentParser) -> None:
    parser.add_argument("--backbone", default=POCKET, help="hub name or folder of an AudioLDM2")
    parser.add_argument("--codebook", type=str, help="hub name, exported folder or .ckpt; the pocket has one")
    parser.add_argument("--device", type=str, help="default: cuda where there is one, else cpu")
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="of the UNet")
    parser.add_argument("--heads", default="hub", choices=("hub", "original"), help="head layout of the UNet")
    parser.add_argument("--null", default="trained", choices=("trained", "stock"), help="what no prompt means")
    parser.add_argument("--batch_size", type=int, default=4, help="windows of 10.24 s at a time")
