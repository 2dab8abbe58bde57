"""Flags from dataclasses, the settings that most verbs share, and the pipeline that they ask for.

jsonargparse evaluates the imports of a dataclass's module, those for type checkers too: none here loads torch.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jsonargparse import SUPPRESS, ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings

from ddcm.cli.outputs import INFERRED, SUFFIXES, choose_out, name_choices
from ddcm.errors import UserError
from ddcm.recipes import Dtype, Heads, Null, Recipe
from ddcm.runtime.files import resolve_shipped
from ddcm.runtime.ranks import read_local_rank
from ddcm.runtime.threads import choose_threads

set_parsing_settings(docstring_parse_attribute_docstrings=True)

Settings = TypeVar("Settings")
Flags = Callable[[ArgumentParser], Any]  # Adds flags to the parser of a verb.
Verbs = dict[Callable[[Namespace], int], tuple[Flags, ...]]
"""Verb -> its flags. It returns an exit code. Its docstring is its help: a line, and examples."""


@dataclass(frozen=True)
class ModelSettings:
    """The model, and how it is computed."""

    backbone: str = "pocket"
    """hub name or folder of an AudioLDM2; pocket is the embedded one"""
    codebook: str | None = None
    """hub name, exported folder or .ckpt; the pocket has one"""
    device: str | None = None
    """default: cuda where there is one, else cpu"""
    dtype: Dtype = "float32"
    """of the UNet"""
    vae_dtype: Dtype = "float32"
    """of the VAE and the vocoder"""
    compile: bool = False
    """the UNet by torch.compile: slow once, then faster"""
    threads: int | None = None
    """of the CPU, for each process; default: the cores that it may use, by affinity and quota, and one for a UNet as
    small as the embedded one. Another number gives other last bits"""
    heads: Heads = "hub"
    """head layout of the UNet"""
    null: Null = "trained"
    """the condition in place of a prompt that is empty"""
    batch_size: int = 4
    """windows of 10.24 s at a time"""

    def __post_init__(self):
        for name, value in {"threads": self.threads, "batch_size": self.batch_size}.items():
            if value is not None and value < 1:
                raise UserError(f"--{name} {value} is less than 1")


@dataclass(frozen=True)
class ProcessSettings:
    """Several processes over the files of a folder."""

    devices: int = 1
    """processes on a node that share the files out"""
    num_nodes: int = 1
    """nodes that run this same command"""


@dataclass(frozen=True)
class PromptSettings:
    """What the result is to be."""

    prompt: str = ""
    """what it shall be; empty: no text encoder is loaded"""
    negative_prompt: str = ""
    """what to guide away from"""
    seed: int = 0
    """of the noise; the same for every file"""


class HelpFormatter(DefaultHelpFormatter):
    """Defaults without types; a short usage; examples line by line."""

    def _get_help_string(self, action: Any) -> str:
        shown = action.default not in (None, "", False, SUPPRESS) and "(default:" not in (action.help or "")
        return f"{action.help or ''}{' (default: %(default)s)' if shown and action.option_strings else ''}"

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:
        short = [action for action in actions if not action.option_strings or action.dest == "out"]
        return (
            super()
            ._format_usage(usage, short, groups, prefix)
            .replace("ddcm [options]", "ddcm")
            .replace("[-o OUT]", "[options]")
        )

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.splitlines())


class Parser(ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, **options: Any):
        super().__init__(formatter_class=HelpFormatter, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        name = re.search(r'key "(?:\w+\.)*(\w+)":', message)
        value = re.search(r"(?:Got|Given) value: (.*)", message)
        expected = re.search(r"Expected a (?:<class '(\w+)'>|typing.Literal\[(.+?)\])", message)
        if name and value and expected:
            kind, choices = expected.groups()
            advice = f"use one of: {choices}".replace("'", "") if choices else f"it must be of type {kind}"
            raise UserError(f"{name[1]} {value[1]!r} is not {'known' if choices else 'valid'}; {advice}")
        message = re.sub(r"(?<=required: )\w+\.", "", message)  # the verb
        raise UserError(" ".join(line.strip() for line in message.splitlines()))


def add_settings(
    parser: ArgumentParser, settings: type, names: Collection[str] | None = None,
    recipe: tuple[str, Recipe] | None = None,
) -> None:  # fmt: skip
    """A flag for each field of a dataclass, or for those in ``names``: type, choices and help are the field's.

    A field that is False by default is a switch. With a ``recipe``, by name, each flag that is left out is None, help
    shows the recipe's value, and a boolean takes true or false.
    """
    from docstring_parser import parse_from_object

    every = {entry.name: entry.default for entry in fields(settings)}
    own = every.keys() if names is None else set(names)
    switches = {name for name in own if every[name] is False and recipe is None}
    parser.add_class_arguments(settings, skip=(every.keys() - own) | switches, as_group=False)
    for param in parse_from_object(settings).params:
        if param.arg_name in switches:
            parser.add_argument(f"--{param.arg_name}", action="store_true", help=param.description)
    if recipe is not None:
        parser.set_defaults(dict.fromkeys(own))
        for action in parser._actions:
            if action.dest in own:
                value = str(getattr(recipe[1], action.dest)).replace("True", "true").replace("False", "false")
                action.help = f"{action.help} (default: {value}, from the recipe {recipe[0]})"


def take(settings: type, names: Collection[str] | None = None, recipe: tuple[str, Recipe] | None = None) -> Flags:
    """``add_settings`` with these arguments."""
    return lambda parser: add_settings(parser, settings, names, recipe)


def flag(*names: str, **options: Any) -> Flags:
    """Adds one flag or positional argument."""
    return lambda parser: parser.add_argument(*names, **options)


OVERWRITE = flag("--overwrite", action="store_true", help="replace outputs that exist")


def out(about: str) -> Flags:
    return flag("-o", "--out", type=str, help=about)


def files(verb: str, inputs: str) -> tuple[Flags, ...]:
    about = name_choices(verb) + f" (default: NAME{SUFFIXES[verb][0]} beside one input)" * (verb in INFERRED)
    return flag("inputs", nargs="+", help=inputs), out(about), OVERWRITE


def complete(verb: str, flags: Namespace) -> Namespace:
    """The flags with the prompt and ``-o`` in place. Raises UserError: they cannot be, or a setting is out of range;
    nothing is loaded yet."""
    more = {}
    if text := flags.get("text"):
        if flags.prompt:
            raise UserError(f"--prompt {flags.prompt!r} and {text!r} are two prompts; give one")
        more["prompt"] = text
    if "backbone" in flags:
        read_settings(flags, ModelSettings)
    flags = Namespace(vars(flags) | more)
    return Namespace(vars(flags) | {"out": choose_out(verb, flags)}) if "out" in flags else flags


def refuse_missing(*paths: str) -> None:
    """Raises UserError: there is no such file or folder."""
    for path in paths:
        if not resolve_shipped(path).exists():
            raise UserError(f"{path}: no such file or folder")


def refuse_existing(paths: Iterable[Path], overwrite: bool) -> None:
    """Raises UserError for the first path that exists, unless ``overwrite``."""
    for path in paths:
        if path.exists() and not overwrite:
            raise UserError(f"{path} exists; --overwrite replaces it")


def read_settings(arguments: Namespace, settings: type[Settings]) -> Settings:
    """The dataclass from its flags. Raises UserError: a value that the dataclass refuses."""
    names = settings.__dataclass_fields__  # type: ignore[attr-defined]
    return settings(**{name: arguments[name] for name in names if name in arguments})


def accept_hyphens(argv: Sequence[str]) -> list[str]:
    """``argv`` with every ``--a-b`` as ``--a_b``, up to ``--``."""
    end = argv.index("--") if "--" in argv else len(argv)
    names = [re.sub(r"^--[^=]*", lambda name: "--" + name[0][2:].replace("-", "_"), word) for word in argv[:end]]
    return [*names, *argv[end:]]


def print_table(rows: Sequence[tuple[str, Any]]) -> None:
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        print(f"{key:<{width}}  {value}")


def load_pipeline(arguments: Namespace, quantises: bool, diffuses: bool = True) -> Any:
    """The ``DDCMPipeline`` of the model settings; the pocket brings its own codebook where the verb quantises. Where it
    diffuses, the size of the UNet counts for the number of threads.

    Raises UserError: a setting out of range, or a backbone or codebook that cannot be loaded.
    """
    from ddcm.pipeline import DDCMPipeline

    model = read_settings(arguments, ModelSettings)
    set_threads(model.threads)
    codebook = ("own" if quantises else None) if model.codebook is None else model.codebook
    pipeline = DDCMPipeline.from_pretrained(
        model.backbone, codebook, model.batch_size, device=choose_device(model.device), dtype=model.dtype,
        vae_dtype=model.vae_dtype, compiled=model.compile, heads=model.heads, null=model.null,
    )  # fmt: skip
    if diffuses and pipeline.device.type == "cpu":
        set_threads(model.threads, pipeline.backbone.unet_weights)
    return pipeline


def choose_device(device: str | None) -> str:
    """The device of this process: under a launcher, each process has a GPU of its own. Raises UserError: there are
    fewer GPUs than processes."""
    import torch

    if device not in (None, "cuda") or not torch.cuda.is_available():
        return device or "cpu"
    rank, processes = read_local_rank()
    if processes > (gpus := torch.cuda.device_count()):
        raise UserError(f"{processes} processes on this node, but {gpus} GPUs: give a smaller --devices")
    return f"cuda:{rank}"


def set_threads(threads: int | None, unet_weights: int = 0) -> None:
    """The CPU threads of this process, by ``choose_threads``."""
    import torch

    if (chosen := choose_threads(threads, unet_weights)) is not None:
        torch.set_num_threads(chosen)
