"""``compress`` and ``decompress`` on the command line."""

from functools import partial
from pathlib import Path

from jsonargparse import Namespace

from ddcm.cli import options
from ddcm.codec.codec_settings import CodecSettings
from ddcm.errors import UserError


def compress(arguments: Namespace) -> int:
    """audio -> .ddcm: the choices of noise that lead the denoiser to it"""
    from ddcm.audio.recording import spool_audio
    from ddcm.cli.batch import Done, process_files
    from ddcm.codec.format import write

    settings = options.read_settings(arguments, CodecSettings)  # refused before a backbone is loaded
    pipeline = options.load_pipeline(arguments, quantises=settings.mode == "vq")
    rate = pipeline.backbone.mel_spec.sample_rate

    def do(job, on_step):
        with spool_audio(job.source, rate) as audio:
            data, seconds = pipeline.compress(audio, rate, on_step, settings), len(audio) / rate
        write(job.target, data)
        return Done(seconds, {"bytes": len(data), "kbps": len(data) / 125 / seconds})

    return process_files("compress", arguments, do, suffixes=(".ddcm",))


def decompress(arguments: Namespace) -> int:
    """.ddcm -> audio"""
    from ddcm.audio.decode import duration_s
    from ddcm.audio.files import audio_writer
    from ddcm.audio.search import find_audio
    from ddcm.cli.batch import Done, process_files
    from ddcm.codec.decompress import decompress_pieces
    from ddcm.codec.format import read

    # Only an opened file says whether it needs a codebook; the pocket's own costs nothing.
    pipeline = options.load_pipeline(arguments, quantises=True)

    def do(job, on_step):
        pieces = decompress_pieces(
            read(job.source),
            pipeline.backbone,
            pipeline.codebook,
            arguments.vocoder,
            pipeline.codec_batch_size,
            on_step,
        )
        with audio_writer(job.target, pipeline.backbone.mel_spec.sample_rate) as write_piece:
            for piece in pieces:
                write_piece(piece)
        return Done(duration_s(job.target))

    return process_files("decompress", arguments, do, partial(find_audio, suffixes={".ddcm"}, what=".ddcm files"))


def generate_compressed(arguments: Namespace) -> int:
    """OUT is a .wav or .flac; the file that decodes to it lies beside it as .ddcm."""
    from ddcm.audio.files import write_audio
    from ddcm.codec.format import write
    from ddcm.runtime.progress import progress_bar

    out = Path(arguments.out)
    if out.suffix.lower() not in (".wav", ".flac"):
        raise UserError(f"-o {out}: name a .wav or .flac file")
    options.refuse_existing((out, out.with_suffix(".ddcm")), arguments.overwrite)
    settings = {name: arguments[name] for name in ("kbps", "quality", "steps")}
    pipeline = options.load_pipeline(arguments, quantises=False)
    with progress_bar("step") as on_step:
        duration_s, seed = arguments.duration_s, arguments.seed
        data, made = pipeline.generate_compressed(arguments.prompt, duration_s, seed, on_step, **settings)
    write(out.with_suffix(".ddcm"), data)
    write_audio(out, made.audio, made.sample_rate)
    return 0


VERBS: options.Verbs = {
    compress: (
        *options.files("audio files or folders", "a folder, or a .ddcm for one input"),
        options.take(CodecSettings, CodecSettings.__dataclass_fields__.keys() - {"schedule"}),
        options.take(options.ModelSettings),
        options.take(options.ProcessSettings),
    ),
    decompress: (
        *options.files(".ddcm files or folders", "a folder, or a .wav or .flac for one input"),
        options.flag("--vocoder", default="refined", choices=("backbone", "refined")),
        options.take(options.ModelSettings),
        options.take(options.ProcessSettings),
    ),
}
