"""The codec's verbs on the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ddcm.cli.options import devices_options
from ddcm.errors import UserError

SETTINGS = ("kbps", "quality", "mode", "book", "steps", "noise_atoms", "coefficient_bits", "levels", "seed",
            "prompt", "guidance_scale", "schedules", "verify")  # fmt: skip


Load = Callable[[], Any]
"""``load()`` gives the pipeline: after everything that can be refused without one."""


def compress(arguments: Any, load: Load) -> int:
    from ddcm.audio.recording import spool_audio
    from ddcm.cli.batch import Done, each, plan, recorder, report
    from ddcm.codec.format import write
    from ddcm.codec.settings import CodecSettings

    given = _given(arguments)
    CodecSettings(**given)  # refused before a backbone is loaded
    pipeline = load()
    rate = pipeline.backbone.mel_spec.sample_rate
    jobs = plan(arguments.inputs, arguments.out, arguments.overwrite, suffixes=(".ddcm",))

    def do(job, on_step):
        with spool_audio(job.source, rate) as audio:
            data, seconds = pipeline.compress(audio, rate, on_step, **given), len(audio) / rate
        write(job.target, data)
        return Done(seconds, {"bytes": len(data), "kbps": len(data) / 125 / seconds})

    return report("compress", jobs, each(jobs, do, recorder("compress", arguments)))


def decompress(arguments: Any, load: Load) -> int:
    from ddcm.audio.files import audio_writer, duration_s
    from ddcm.cli.batch import Done, each, plan, recorder, report
    from ddcm.codec.decode import decode_pieces
    from ddcm.codec.format import read

    pipeline = load()
    rate = pipeline.backbone.mel_spec.sample_rate
    jobs = plan(arguments.inputs, arguments.out, arguments.overwrite, find_streams)

    def do(job, on_step):
        pieces = decode_pieces(read(job.source), pipeline.backbone, pipeline.codebook, arguments.vocoder, on_step)
        with audio_writer(job.target, rate) as write_piece:
            for piece in pieces:
                write_piece(piece)
        return Done(duration_s(job.target))

    return report("decompress", jobs, each(jobs, do, recorder("decompress", arguments)))


def generate_compressed(arguments: Any, load: Load) -> int:
    """OUT is a .wav or .flac; the file that decodes to it lies beside it as .ddcm."""
    from ddcm.audio.files import write_audio
    from ddcm.codec.format import write

    out = Path(arguments.out)
    if out.suffix.lower() not in (".wav", ".flac"):
        raise UserError(f"-o {out}: name a .wav or .flac file")
    for path in (out, out.with_suffix(".ddcm")):
        if path.exists() and not arguments.overwrite:
            raise UserError(f"{path} exists; --overwrite replaces it")
    given = {name: arguments[name] for name in ("kbps", "quality", "steps") if arguments[name] is not None}
    pipeline = load()
    data, made = pipeline.generate_compressed(arguments.prompt, arguments.duration_s, arguments.seed, **given)
    write(out.with_suffix(".ddcm"), data)
    write_audio(out, made.audio, made.sample_rate)
    return 0


def find_streams(inputs: Iterable[str | Path]) -> list[tuple[Path, Path]]:
    """``.ddcm`` files, sorted, each with its name relative to its input: as ``ddcm.audio.files.find_audio``.

    Raises:
        UserError: a folder without any.
    """
    found: list[tuple[Path, Path]] = []
    for path in map(Path, inputs):
        if not path.is_dir():
            found.append((path, Path(path.name)))
            continue
        files = sorted(p for p in path.rglob("*.ddcm") if p.is_file() and not p.name.startswith("."))
        if not files:
            raise UserError(f"no .ddcm files in {path}")
        found += [(file, file.relative_to(path)) for file in files]
    return found


def _given(arguments: Any) -> dict[str, Any]:
    given = {name: arguments[name] for name in SETTINGS if arguments[name] is not None}
    if "schedules" in given:
        given["schedules"] = Path(given["schedules"])
    return given


def add_verbs(verb: Callable[[str, str], Any], common_options: Callable[[Any], None]) -> None:
    """``verb(name, about)`` makes a parser; ``common_options`` adds those that all verbs have."""
    one = verb("compress", "audio -> .ddcm: the choices of noise that lead the denoiser to it")
    one.add_argument("inputs", nargs="+", help="audio files or folders")
    one.add_argument("-o", "--out", required=True, help="a folder, or a .ddcm for one input")
    one.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    rate_options(one)
    one.add_argument("--steps", type=int, help="UNet calls for a window; default: what is best at the rate")
    one.add_argument("--mode", type=str, help="turbo (default), classic, or vq: the codes of --codebook")
    one.add_argument("--book", type=str, help="noise codebook: hadamard (default) or gaussian")
    one.add_argument("--noise_atoms", type=int, help="atoms of a gaussian noise codebook; default 16384")
    one.add_argument("--coefficient_bits", type=int, help="classic: bits of each further atom's coefficient; default 3")
    one.add_argument("--levels", type=int, help="vq: levels of a residual codebook to keep; default all")
    one.add_argument("--prompt", type=str, help="what the recording is: side information, kept in the file")
    one.add_argument("--guidance_scale", type=float, help="how strongly the prompt acts; 1 (default) is not guided")
    one.add_argument("--seed", type=int, help="of the noise codebooks")
    one.add_argument("--schedules", type=str, help="a table of benchmarks/schedules.py for this backbone")
    one.add_argument("--verify", action="store_true", help="decode and compare before the file is written")
    common_options(one)
    devices_options(one)

    one = verb("decompress", ".ddcm -> audio")
    one.add_argument("inputs", nargs="+", help=".ddcm files or folders")
    one.add_argument("-o", "--out", required=True, help="a folder, or a .wav or .flac for one input")
    one.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    one.add_argument("--vocoder", default="refined", choices=("backbone", "refined"))
    common_options(one)
    devices_options(one)


def rate_options(parser: Any) -> None:
    parser.add_argument("--kbps", type=float, help="bytes on disk x 8 / seconds / 1000; default 1")
    parser.add_argument("--quality", type=str, help="low, medium, high, best: 0.5, 1, 2, 4 kbps")
