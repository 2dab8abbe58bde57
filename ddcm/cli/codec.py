"""``compress`` and ``decompress`` on the command line."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from ddcm.audio.search import WRITTEN, find_audio
from ddcm.cli import options
from ddcm.cli.outputs import describe_file
from ddcm.codec.codec_settings import WITH_CODEBOOK, CodecSettings
from ddcm.errors import UserError
from ddcm.runtime.progress import OnStep, progress_bar

if TYPE_CHECKING:
    from ddcm.cli.batch import Do, Done, Job

log = logging.getLogger(__name__)


def compress(arguments: Namespace) -> int:
    """audio -> .ddcm: the choices of noise that lead the denoiser to it

    ddcm compress examples/speech.flac -o out/speech.ddcm
    ddcm compress examples -o out/small --kbps 0.5
    """
    from ddcm.cli.batch import process_files

    settings = options.read_settings(arguments, CodecSettings)
    return process_files("compress", arguments, lambda: _load_encoder(settings, arguments))


def _load_encoder(settings: CodecSettings, arguments: Namespace) -> Do:
    from ddcm.audio.recording import spool_audio
    from ddcm.cli.batch import Done
    from ddcm.codec.format import write
    from ddcm.codec.hybrid import FROM_KBPS, has_too_low_a_rate

    if settings.db is None and has_too_low_a_rate(settings):
        log.warning("mode hybrid codes levels from %g kbps; these are turbo files, which are nearer here", FROM_KBPS)
    pipeline = options.load_pipeline(arguments, quantises=settings.mode in WITH_CODEBOOK)
    rate = pipeline.backbone.mel_spec.sample_rate

    def do(job: Job, on_step: OnStep) -> Done:
        with spool_audio(job.source, rate) as audio:
            data, seconds = pipeline.compress(audio, rate, on_step, settings), len(audio) / rate
        write(job.target, data)
        return Done(seconds, {"bytes": len(data), "kbps": len(data) / 125 / seconds})

    return do


def decompress(arguments: Namespace) -> int:
    """.ddcm -> audio

    ddcm decompress out/speech.ddcm
    ddcm decompress out/small -o out/decoded
    """
    from ddcm.cli.batch import process_files

    find = partial(find_audio, suffixes={".ddcm"}, what=".ddcm files")
    return process_files("decompress", arguments, lambda: _load_decoder(arguments), find)


def _load_decoder(arguments: Namespace) -> Do:
    from ddcm.audio.decode import duration_s
    from ddcm.audio.files import audio_writer
    from ddcm.cli.batch import Done
    from ddcm.codec.decompress import decompress_pieces
    from ddcm.codec.format import read

    # Only an opened file says whether it needs a codebook; the pocket's own costs nothing.
    pipeline = options.load_pipeline(arguments, quantises=True)

    def do(job: Job, on_step: OnStep) -> Done:
        data = read(job.source)
        codebook = pipeline.find_codebook(data)
        pieces = decompress_pieces(
            data, pipeline.backbone, codebook, arguments.vocoder, pipeline.codec_batch_size, on_step
        )
        with audio_writer(job.target, pipeline.backbone.mel_spec.sample_rate) as write_piece:
            for piece in pieces:
                write_piece(piece)
        return Done(duration_s(job.target))

    return do


def generate_compressed(arguments: Namespace) -> int:
    """OUT is a .wav or .flac; the file that decodes to it lies beside it as .ddcm."""
    out = Path(arguments.out)
    if out.suffix.lower() not in WRITTEN:
        raise UserError(f"-o {out}: name a {' or '.join(WRITTEN)} file")
    options.refuse_existing((out, out.with_suffix(".ddcm")), arguments.overwrite)
    settings = {name: arguments[name] for name in ("kbps", "quality", "steps")}
    with progress_bar() as bar:
        from ddcm.audio.files import write_audio
        from ddcm.codec.format import write

        pipeline = options.load_pipeline(arguments, quantises=False)
        bar.begin("generate")
        duration_s, seed = arguments.duration_s, arguments.seed
        data, made = pipeline.generate_compressed(arguments.prompt, duration_s, seed, bar.on_step, **settings)
    write(out.with_suffix(".ddcm"), data)
    write_audio(out, made.audio, made.sample_rate)
    seconds = len(made.audio) / made.sample_rate
    print(describe_file(out.with_suffix(".ddcm"), None, {"bytes": len(data), "kbps": made.info.kbps}))
    print(describe_file(out, seconds, {}))
    return 0


VERBS: options.Verbs = {
    compress: (
        *options.files("compress", "audio files or folders"),
        options.take(CodecSettings, CodecSettings.__dataclass_fields__.keys() - {"schedule"}),
        options.take(options.ModelSettings),
        options.take(options.ProcessSettings),
    ),
    decompress: (
        *options.files("decompress", ".ddcm files or folders"),
        options.flag("--vocoder", default="refined", choices=("backbone", "refined"), help="of the decoded mel"),
        options.take(options.ModelSettings),
        options.take(options.ProcessSettings),
    ),
}
