"""What callers may write: the names of diffusers, one audio or many, and audio in every usual form."""

import functools
import inspect
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from difflib import get_close_matches
from numbers import Real
from typing import Any, ParamSpec, TypeVar, get_args

import torch

from ddcm.audio.files import read_audio, to_mono
from ddcm.errors import UserError
from ddcm.pipeline.output import Output, Outputs, OutputType
from ddcm.recipes import RECIPES, Recipe

P = ParamSpec("P")
T = TypeVar("T")
NAMES = {
    "num_inference_steps": "steps", "audio_length_in_s": "duration_s", "num_waveforms_per_prompt": "n",
    "sampling_rate": "sample_rate", "torch_dtype": "dtype",
}  # fmt: skip
"""Name in diffusers or transformers -> the name here that means the same."""
NEAREST = {
    "eta": "solver", "scheduler": "solver", "latents": "seed", "prompt_embeds": "prompt", "image": "audio",
    "negative_prompt_embeds": "negative_prompt", "callback": "callback_on_step_end",
    "callback_steps": "callback_on_step_end", "callback_on_step_end_tensor_inputs": "callback_on_step_end",
    "transcription": "prompt", "device_map": "device", "variant": "dtype",
}  # fmt: skip
"""Name in diffusers that means something else or nothing here -> what to use instead, where there is one."""
LISTS = ("prompt", "audio", "negative_prompt", "seed", "generator")  # arguments of a call that may be lists


def accept(settings: Collection[str]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator for a verb that takes ``settings`` as further keywords: keywords may have the names of ``NAMES``, a
    ``generator`` stands for a seed, and None for the default. Other names are a UserError with the nearest one."""

    def decorate(verb: Callable[P, T]) -> Callable[P, T]:
        valid = list_names(verb, settings)

        @functools.wraps(verb)
        def call(*arguments: P.args, **options: P.kwargs) -> T:
            return verb(*arguments, **translate(options, valid))

        return call

    return decorate


def list_names(verb: Callable, settings: Collection[str]) -> list[str]:
    """The keywords of a verb: its own parameters and ``settings``."""
    parameters = inspect.signature(verb).parameters.values()
    return [each.name for each in parameters if each.name != "self" and each.kind != each.VAR_KEYWORD] + [*settings]


def translate(options: Mapping[str, Any], valid: Collection[str]) -> Any:
    """``options`` under the names of ``valid``. Raises UserError: an unknown name, or two names of one thing."""
    result: dict[str, Any] = {}
    known = [
        *valid,
        *(name for name, here in NAMES.items() if here in valid),
        *(["generator"] if "seed" in valid else []),
    ]
    for name, value in options.items():
        if name not in known:
            near = NEAREST.get(name)
            nearest = near if near in known else get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise UserError(f"{name} is not known here; the nearest is {nearest!r}")
        here = name if name in valid else NAMES.get(name, "seed")
        if value is None:
            continue
        if here in result:
            raise UserError(f"{name} and another argument both stand for {here}; give one of them")
        result[here] = draw_seed(value) if name == "generator" else value
    return result


def draw_seed(generator: Any) -> int:
    """The next seed of a ``torch.Generator``: the same state gives the same audio, and the next call other audio."""
    if not isinstance(generator, torch.Generator):
        raise UserError(f"generator is a torch.Generator, not {type(generator).__name__}; a number is a seed")
    return int(torch.randint(1 << 31, (1,), generator=generator, device=generator.device))


def read_input(audio: Any, sample_rate: Any, target: int) -> torch.Tensor:
    """Mono float32 (S,) at ``target`` Hz of a path, an ``Output``, a pair of an array and its rate in either order, a
    dictionary with ``array`` and ``sampling_rate`` (as of ``datasets``), or an array at ``sample_rate`` Hz. Raises
    UserError: as ``read_audio`` and ``to_mono``, or an array without a rate."""
    if isinstance(audio, str | os.PathLike):
        return read_audio(os.fspath(audio), target)
    if isinstance(audio, Output):
        audio, sample_rate = audio.audio, audio.sample_rate
    elif isinstance(audio, Mapping) and {"array", "sampling_rate"} <= audio.keys():
        audio, sample_rate = audio["array"], audio["sampling_rate"]
    elif is_pair(audio):
        sample_rate, audio = audio if isinstance(audio[0], Real) else reversed(audio)
    if sample_rate is None:
        raise UserError("audio is an array without a rate; give sample_rate in Hz, or (array, rate), or a path")
    return to_mono(audio, sample_rate, target)


def is_pair(audio: Any) -> bool:
    """Whether audio is (array, rate) or (rate, array)."""
    return isinstance(audio, tuple) and len(audio) == 2 and sum(isinstance(part, Real) for part in audio) == 1


def is_list(name: str, value: Any) -> bool:
    """Whether an argument has a value for each of several outputs. A list of numbers, or of lists of them, is audio."""
    if not isinstance(value, list | tuple) or is_pair(value):
        return False
    return name != "audio" or not value or not isinstance(value[0], Real | list)


def call(pipe: Any, prompt: Any, audio: Any, options: dict[str, Any]) -> Output | Outputs | tuple:
    """``DDCMPipeline.__call__``: the verb for each prompt or clip, under the names of diffusers."""
    kind, as_object = options.pop("output_type", None) or "np", options.pop("return_dict", True)
    if kind not in get_args(OutputType):
        raise UserError(f"output_type {kind!r} is not known; use one of: {', '.join(get_args(OutputType))}")
    verb = getattr(pipe, _choose_verb(prompt, audio, options.get("recipe")))
    given = {name: x for name, x in {"prompt": prompt, "audio": audio, **options}.items() if x is not None}
    lists = {name: given[name] for name in LISTS if is_list(name, given.get(name))}
    sizes = {name: len(values) for name, values in lists.items()}
    if len({*sizes.values()}) > 1 or 0 in sizes.values():
        raise UserError(
            f"lists must have the same length, at least 1: {', '.join(f'{n} {k}' for n, k in sizes.items())}"
        )
    outs = [
        replace(verb(**given | {name: values[i] for name, values in lists.items()}), output_type=kind)
        for i in range(max(sizes.values(), default=1))
    ]
    out = Outputs(outs) if lists else outs[0]
    return out if as_object else (out.audios,)


def _choose_verb(prompt: Any, audio: Any, recipe: Any) -> str:
    if audio is None:
        if prompt is None:
            raise UserError("nothing to do: give a prompt, audio, or both")
        return "generate"
    chosen = RECIPES.get(recipe) if isinstance(recipe, str) else recipe
    return "reconstruct" if isinstance(chosen, Recipe) and chosen.verb == "reconstruct" else "transform"
