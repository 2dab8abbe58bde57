"""``reconstruct``, ``transform`` and ``generate`` on the command line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from ddcm.cli import options
from ddcm.cli.codec import generate_compressed
from ddcm.codec.codec_settings import CodecSettings
from ddcm.errors import UserError
from ddcm.recipes import Recipe, Verb, list_flags, resolve

if TYPE_CHECKING:
    from ddcm.pipeline.output import Output

log = logging.getLogger(__name__)
LONG_S = 61.44  # seconds: above this, six windows, a recording is streamed


def reconstruct(arguments: Namespace) -> int:
    """audio -> mel -> VAE -> mel -> vocoder -> audio"""
    return _process_files("reconstruct", arguments)


def transform(arguments: Namespace) -> int:
    """noise the input's quantised latent to STRENGTH and denoise it under a prompt"""
    return _process_files("transform", arguments)


def _process_files(verb: Verb, arguments: Namespace) -> int:
    """Long recordings are streamed, if the recipe allows it and no trace is asked for."""
    from ddcm.audio.decode import duration_s
    from ddcm.audio.files import audio_writer, read_audio, write_audio
    from ddcm.audio.recording import spool_audio
    from ddcm.cli.batch import Done, process_files
    from ddcm.pipeline.stages import Conditioning
    from ddcm.pipeline.streaming import can_stream, stream

    recipe = _read_recipe(verb, arguments)
    pipeline = options.load_pipeline(arguments, recipe.quantizer != "none")
    setup, rate = pipeline.set_up(verb, recipe), pipeline.backbone.mel_spec.sample_rate
    inputs = {name: arguments[name] for name in ("prompt", "negative_prompt", "seed", "trace") if name in arguments}
    conditioning = Conditioning(arguments.prompt, arguments.negative_prompt) if verb == "transform" else None
    streams = can_stream(recipe) and not arguments.get("trace")

    def do(job, on_step):
        if streams and duration_s(job.source) > LONG_S:
            with spool_audio(job.source, rate) as recording, audio_writer(job.target, rate) as write:
                info = stream(setup, recording, write, conditioning, arguments.seed, on_step)
                return Done(len(recording) / rate, info.list_used())
        audio = read_audio(job.source, rate)
        out = getattr(pipeline, verb)(audio, rate, recipe=recipe, on_step=on_step, **inputs)
        write_extras(job.target, out)  # before the audio: where the audio exists, they do too
        write_audio(job.target, out.audio, rate)
        return Done(len(out.audio) / rate, out.info.list_used())

    return process_files(verb, arguments, do)


def generate(arguments: Namespace) -> int:
    """a prompt -> audio, with the codebook acting where the recipe says"""
    if arguments.compressed:
        return generate_compressed(arguments)
    for name in ("kbps", "quality"):
        if arguments[name] is not None:
            raise UserError(f"--{name} is for generate --compressed")
    from ddcm.audio.files import write_audio
    from ddcm.runtime.files import slug, write_atomically
    from ddcm.runtime.progress import progress_bar

    recipe, prompt = _read_recipe("generate", arguments), arguments.prompt
    targets = name_candidates(Path(arguments.out), slug(prompt or "unconditional"), recipe.n)
    scores = targets[0].with_suffix(".json")
    options.refuse_existing([*targets, *([scores] if recipe.n > 1 else [])], arguments.overwrite)
    pipeline = options.load_pipeline(arguments, recipe.quantizer != "none")
    with progress_bar("step") as on_step:
        best = pipeline.generate(
            prompt, arguments.duration_s, arguments.negative_prompt, recipe, arguments.seed, on_step, arguments.trace
        )
    rows = []
    for target, candidate in zip(targets, [best, *best.others], strict=True):
        write_extras(target, candidate)
        write_audio(target, candidate.audio, candidate.sample_rate)
        rows.append({"file": target.name, "seed": candidate.info.seed, "clap_score": candidate.info.clap_score})
    if recipe.n > 1:
        with write_atomically(scores) as temporary:
            temporary.write_text(json.dumps({"prompt": prompt, "candidates": rows}, indent=2) + "\n")
        for row in rows:
            score = "not scored: no prompt" if row["clap_score"] is None else f"CLAP score {row['clap_score']:.4f}"
            print(f"{row['file']}  seed {row['seed']}  {score}")
    return 0


def name_candidates(out: Path, name: str, n: int) -> list[Path]:
    """Files for n candidates: OUT itself, or NAME.wav in the folder OUT; then NAME-2, NAME-3, ..."""
    first = out if out.suffix.lower() in (".wav", ".flac") else out / f"{name}.wav"
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


RECIPE = options.flag("--recipe", type=str, help="a row of: ddcm recipes; flags that are left out are the recipe's")
INPUTS = (
    *options.files("audio files or folders", "a folder, or a .wav or .flac for one input"),
    options.take(options.ProcessSettings),
    RECIPE,
)
TRACE = options.flag("--trace", action="store_true", help="also NAME.trace.png: the estimates on the way")
DIFFUSION = (options.take(options.PromptSettings), TRACE, options.take(options.ModelSettings))
VERBS: options.Verbs = {
    reconstruct: (
        *INPUTS,
        options.take(Recipe, list_flags("reconstruct"), defaults=False),
        options.flag("--seed", type=int, default=0, help="of the latent's sample, where the recipe draws one"),
        options.take(options.ModelSettings),
    ),
    transform: (*INPUTS, options.take(Recipe, list_flags("transform"), defaults=False), *DIFFUSION),
    generate: (
        options.flag("-o", "--out", required=True, help="a .wav or .flac, or a folder; more of --n are numbered"),
        options.OVERWRITE,
        options.flag("--duration_s", type=float, default=10.24, help="seconds of audio"),
        RECIPE,
        options.take(Recipe, list_flags("generate"), defaults=False),
        options.flag("--compressed", action="store_true", help="also NAME.ddcm, which decodes without the prompt"),
        options.take(CodecSettings, ("kbps", "quality")),
        *DIFFUSION,
    ),
}
