"""``reconstruct``, ``transform`` and ``generate`` on the command line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from ddcm.audio.search import WRITTEN
from ddcm.cli import options
from ddcm.cli.codec import generate_compressed
from ddcm.cli.outputs import describe_file
from ddcm.codec.codec_settings import CodecSettings
from ddcm.errors import UserError
from ddcm.recipes import DEFAULTS, RECIPES, Recipe, Verb, list_flags, resolve
from ddcm.runtime.files import slug, write_atomically
from ddcm.runtime.progress import OnStep, progress_bar

if TYPE_CHECKING:
    from ddcm.cli.batch import Do, Done, Job
    from ddcm.pipeline.output import Output

log = logging.getLogger(__name__)
LONG_S = 61.44  # seconds: above this, six windows, a recording is streamed


def reconstruct(arguments: Namespace) -> int:
    """audio -> mel -> VAE -> mel -> vocoder -> audio

    ddcm reconstruct examples/speech.flac -o out/speech.wav
    ddcm reconstruct examples -o out/quantised --recipe quantised
    """
    return _process_files("reconstruct", arguments)


def transform(arguments: Namespace) -> int:
    """noise the input's quantised latent to STRENGTH and denoise it under a prompt

    ddcm transform examples/drumloop.flac -o out/drum.wav --strength 0.3
    ddcm transform examples -o out/music --prompt "game music, menu" --strength 0.6 --seed 1
    """
    return _process_files("transform", arguments)


def _process_files(verb: Verb, arguments: Namespace) -> int:
    from ddcm.cli.batch import process_files

    recipe = _read_recipe(verb, arguments)
    return process_files(verb, arguments, lambda: _load(verb, recipe, arguments))


def _load(verb: Verb, recipe: Recipe, arguments: Namespace) -> Do:
    """Long recordings are streamed, if the recipe allows it and no trace is asked for."""
    from ddcm.audio.decode import duration_s
    from ddcm.audio.files import audio_writer, read_audio, write_audio
    from ddcm.audio.recording import spool_audio
    from ddcm.cli.batch import Done
    from ddcm.pipeline.long_recordings import can_stream, stream
    from ddcm.pipeline.stages import Conditioning

    pipeline = options.load_pipeline(arguments, recipe.quantizer != "none", diffuses=verb != "reconstruct")
    setup, rate = pipeline.set_up(verb, recipe), pipeline.backbone.mel_spec.sample_rate
    inputs = {name: arguments[name] for name in ("prompt", "negative_prompt", "seed", "trace") if name in arguments}
    conditioning = Conditioning(arguments.prompt, arguments.negative_prompt) if verb == "transform" else None
    streams = can_stream(recipe) and not arguments.get("trace")

    def do(job: Job, on_step: OnStep) -> Done:
        if streams and duration_s(job.source) > LONG_S:
            with spool_audio(job.source, rate) as recording, audio_writer(job.target, rate) as write:
                info = stream(setup, recording, write, conditioning, arguments.seed, on_step)
                return Done(len(recording) / rate, info.list_used())
        audio = read_audio(job.source, rate)
        out = getattr(pipeline, verb)(audio, rate, recipe=recipe, on_step=on_step, **inputs)
        write_extras(job.target, out)  # before the audio: where the audio exists, they do too
        write_audio(job.target, out.audio, rate)
        return Done(len(out.audio) / rate, out.info.list_used())

    return do


def generate(arguments: Namespace) -> int:
    """a prompt -> audio, with the codebook acting where the recipe says

    ddcm generate "rain on a tin roof"
    ddcm generate "game music, menu" -o out/menu.wav --n 4 --seed 1
    """
    if arguments.compressed:
        return generate_compressed(arguments)
    for name in ("kbps", "quality"):
        if arguments[name] is not None:
            raise UserError(f"--{name} is for generate --compressed")
    recipe, prompt = _read_recipe("generate", arguments), arguments.prompt
    targets = name_candidates(Path(arguments.out), slug(prompt or "unconditional"), recipe.n)
    scores = targets[0].with_suffix(".json")
    options.refuse_existing([*targets, *([scores] if recipe.n > 1 else [])], arguments.overwrite)
    with progress_bar() as bar:
        from ddcm.audio.files import write_audio

        pipeline = options.load_pipeline(arguments, recipe.quantizer != "none")
        bar.begin("generate")
        best = pipeline.generate(
            prompt, arguments.duration_s, arguments.negative_prompt, recipe, arguments.seed, bar.on_step,
            arguments.trace,
        )  # fmt: skip
    rows = []
    for target, candidate in zip(targets, [best, *best.others], strict=True):
        write_extras(target, candidate)
        write_audio(target, candidate.audio, candidate.sample_rate)
        rows.append({"file": target.name, "seed": candidate.info.seed, "clap_score": candidate.info.clap_score})
        print(describe_file(target, len(candidate.audio) / candidate.sample_rate, candidate.info.list_used()))
    if recipe.n > 1:
        with write_atomically(scores) as temporary:
            temporary.write_text(json.dumps({"prompt": prompt, "candidates": rows}, indent=2) + "\n")
        print(f"{scores}: the candidates' CLAP scores" + ("" if prompt else ", none without a prompt"))
    return 0


def name_candidates(out: Path, name: str, n: int) -> list[Path]:
    """Files for n candidates: OUT itself, or NAME.wav in the folder OUT; then NAME-2, NAME-3, ..."""
    first = out if out.suffix.lower() in WRITTEN else out / f"{name}.wav"
    return [first, *(first.with_name(f"{first.stem}-{i}{first.suffix}") for i in range(2, n + 1))]


def write_extras(target: Path, out: Output) -> None:
    """Write ``NAME.trace.png`` of a trace, and log which vocoders failed."""
    if out.trace:
        from ddcm.evaluation.plots import draw_sheet

        # Early estimates are of noise: they are drawn as they are, up to the length of the audio.
        frames = -(-len(out.audio) * 100 // out.sample_rate)
        draw_sheet(target.with_suffix(".trace.png"), [(f"timestep {t}", mel[0, 0, :frames]) for t, mel in out.trace])
    for reason in out.info.vocoder_failed:
        log.warning("%s: vocoder %s was used; %s", target.name, out.info.vocoder, reason)


def _read_recipe(verb: Verb, arguments: Namespace) -> Recipe:
    return resolve(verb, arguments.recipe, **{name: arguments[name] for name in list_flags(verb)})


def _recipe_flags(verb: Verb) -> tuple[options.Flags, ...]:
    name = DEFAULTS[verb]
    about = f"a row of: ddcm recipes; flags that are left out are the recipe's (default: {name})"
    settings = options.take(Recipe, list_flags(verb), recipe=(name, RECIPES[name]))
    return options.flag("--recipe", type=str, help=about), settings


TRACE = options.flag("--trace", action="store_true", help="also NAME.trace.png: the estimates on the way")
DIFFUSION = (options.take(options.PromptSettings), TRACE, options.take(options.ModelSettings))
PROCESSES = options.take(options.ProcessSettings)
VERBS: options.Verbs = {
    reconstruct: (
        *options.files("reconstruct", "audio files or folders"),
        PROCESSES,
        *_recipe_flags("reconstruct"),
        options.flag("--seed", type=int, default=0, help="of the latent's sample, where the recipe draws one"),
        options.take(options.ModelSettings),
    ),
    transform: (
        *options.files("transform", "audio files or folders"), PROCESSES, *_recipe_flags("transform"), *DIFFUSION
    ),
    generate: (
        options.flag("text", nargs="?", metavar="PROMPT", help="what it shall be; the same as --prompt"),
        options.out("a .wav or .flac, or a folder; more of --n are numbered (default: the prompt's words .wav)"),
        options.OVERWRITE,
        options.flag("--duration_s", type=float, default=10.24, help="seconds of audio"),
        *_recipe_flags("generate"),
        options.flag("--compressed", action="store_true", help="also NAME.ddcm, which decodes without the prompt"),
        options.take(CodecSettings, ("kbps", "quality")),
        *DIFFUSION,
    ),
}  # fmt: skip
