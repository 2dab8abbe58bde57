"""Rate against distortion on the validation clips: our modes and codebooks, Opus and Codec2, and the ceilings.

    python -m benchmarks.codec --corpus runs/corpus                      # everything; docs/codec.md, .csv and .png
    python -m benchmarks.codec --corpus runs/corpus --clips 2 --only turbo opus ceiling --out runs/codec
    python -m benchmarks.codec --corpus runs/corpus --only vq hybrid --codebook pocket-residual

Bytes are those of the file. The ceiling is the VAE and a vocoder with nothing quantised; "over" is what a row loses to
the ceiling with the same vocoder: the backbone's own ("plain"), or corrected towards its mel ("refined", what
``decompress`` does by itself). ``mel`` is the error of the decoded log-mel against the input's, before any vocoder. The
other metrics are of the refined audio. Clips of one length are coded in the same UNet calls (``benchmarks.together``);
with ``--check`` the first of each group is decoded again from its bytes in calls of its own, and its latents must be
the same but for rounding. A row that was measured before is taken from the CSV: an interrupted run goes on.

The residual codebook of docs/codec.md is 300 steps of

    python train.py fit -c configs/fit.yaml -c configs/residual.yaml --data.root POOL/manifest.csv \\
        --model.quantizer.level.init_args.codebook_size=8 --trainer.max_steps 300 --trainer.val_check_interval 150
"""

import argparse
import csv
import functools
import multiprocessing
import os
import shlex
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.codec_report import FIELDS, NEAREST, plot, read_rows, write_page
from benchmarks.together import Coded, compress, in_lengths
from ddcm.audio.layout import even_layout
from ddcm.audio.level import measure_level
from ddcm.audio.mel import mel_error_db
from ddcm.audio.refine import refine
from ddcm.audio.windows import window_mel
from ddcm.codec.codec_settings import WITH_CODEBOOK, CodecSettings
from ddcm.codec.codes import vq
from ddcm.codec.compress import add_level, build_header
from ddcm.codec.compress import compress as compress_alone
from ddcm.codec.decompress import decompress
from ddcm.codec.format import pack, unpack
from ddcm.codec.header import BANDS
from ddcm.errors import UserError
from ddcm.evaluation.evaluate_files import measure
from ddcm.evaluation.peers import ENCODERS, System, find_encoders, list_by_ffmpeg
from ddcm.evaluation.signal_metrics import log_mel_mae_db
from ddcm.pipeline import DDCMPipeline
from ddcm.quantize.pretrained import load_codebook
from pocket.batches import validation
from pocket.corpus import SAMPLE_RATE, Clip, Corpus

RATES = (0.25, 0.5, 1.0, 2.0, 4.0)
TOGETHER = (2.0, 3.0, 4.0, 6.0, 8.0)  # kbps of mode hybrid; turbo has these too
SINGLE = (0.25, 0.5, 1.0)  # kbps at which one atom a step is affordable: 18, 36 and 72 UNet calls a second of sound
SLOW = "classic one atom"
Row = dict[str, str | float]


@dataclass(frozen=True)
class Nearest:
    """The codec of codes without its choice and its models: nearest atoms level by level, coded by counts alone. Of it
    only size and mel are measured: what vq saves is compared with it."""

    levels: int


Settings = CodecSettings | Nearest | None  # None: nothing is compressed


def list_systems(args: argparse.Namespace) -> dict[str, Settings]:
    """Name -> how it is compressed."""
    systems: dict[str, Settings] = {"ceiling": None}
    for kbps in sorted({*RATES, *TOGETHER}):
        systems[f"turbo hadamard {kbps:g}"] = CodecSettings(kbps=kbps)
    for kbps in RATES:
        systems[f"turbo one basis {kbps:g}"] = CodecSettings(kbps=kbps, bases=1)
    for kbps in RATES:
        systems[f"turbo gaussian {kbps:g}"] = CodecSettings(kbps=kbps, book="gaussian", noise_atoms=args.gaussian_atoms)
    for kbps in RATES:
        systems[f"classic 30 steps {kbps:g}"] = CodecSettings(kbps=kbps, mode="classic", steps=30)
    for kbps in SINGLE:
        systems[f"{SLOW} {kbps:g}"] = CodecSettings(kbps=kbps, mode="classic")
    if args.codebook:
        quantizer = load_codebook(args.codebook).quantizer
        for levels in range(1, quantizer.num_quantizers + 1):
            systems[f"vq {quantizer.codebook_size} atoms, levels {levels}"] = CodecSettings(mode="vq", levels=levels)
        for levels in range(1, quantizer.num_quantizers + 1):
            systems[f"{NEAREST}{levels}"] = Nearest(levels)
        if quantizer.num_quantizers > 1:
            systems |= {f"hybrid {kbps:g}": CodecSettings(kbps=kbps, mode="hybrid") for kbps in TOGETHER}
    return systems


def list_peers() -> dict[str, System]:
    """Other codecs, as far as ffmpeg has them."""
    rates = {"opus": [6.0], "codec2": None}
    known = [list_by_ffmpeg(name, rates[name]) for name in rates if ENCODERS[name].name in find_encoders()]
    return {system.name: system for systems in known for system in systems}


class Work:
    """One process's models and clips."""

    def __init__(self, args: argparse.Namespace):
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        self.pipe = DDCMPipeline.from_pretrained(args.backbone, args.codebook or None)
        self.clips, self.systems, self.peers = read_clips(args), list_systems(args), list_peers()

    def rows(self, name: str, numbers: list[int], check: bool) -> list[Row]:
        """Rows of clips of one length."""
        if name in self.peers:
            return [self._peer(name, number) for number in numbers]
        audios, settings = [torch.from_numpy(self.clips[n][1]) for n in numbers], self.systems[name]
        if settings is None:
            coded = [Coded(b"", self.pipe.backbone.encode(self._mel(audio)), 0, 0.0) for audio in audios]
        elif isinstance(settings, Nearest):
            coded = [self._nearest(audio, settings.levels) for audio in audios]
        elif settings.mode in WITH_CODEBOOK:
            coded = [self._alone(audio, settings) for audio in audios]
        else:
            coded = compress(audios, self.pipe.backbone, settings)
        rows = []
        for number, audio, one in zip(numbers, audios, coded, strict=True):
            row = self._row(name, number, one.data, one.calls) | self._measure_mel(audio, one)
            is_heard = not isinstance(settings, Nearest)
            rows.append(row | (self._measure_audio(audio, one, self.clips[number][0]) if is_heard else {}))
        if check and settings is not None:
            begin, first = time.perf_counter(), coded[0]
            again = decompress(first.data, self.pipe.backbone, self.pipe.codebook).latent
            gap = float((again - first.z).square().mean().sqrt())
            if gap > 1e-4:
                raise UserError(f"{name}: {rows[0]['clip']} does not decode to the latents of its encoder")
            print(f"{name}: decoded alone, {gap:.1e} apart, {time.perf_counter() - begin:.1f} s", flush=True)
        return rows

    def _mel(self, audio: torch.Tensor) -> torch.Tensor:
        spec = self.pipe.backbone.mel_spec
        return window_mel(audio, measure_level(audio), even_layout(len(audio), spec.hop), 0, spec)

    def _alone(self, audio: torch.Tensor, settings: CodecSettings) -> Coded:
        kept, begin = [], time.perf_counter()
        data = compress_alone(audio, self.pipe.backbone, settings, self.pipe.codebook, on_latent=kept.append)
        calls = 0 if settings.mode == "vq" else len(unpack(data)[0].steps.timesteps)
        return Coded(data, kept[0], calls, time.perf_counter() - begin)

    def _nearest(self, audio: torch.Tensor, levels: int) -> Coded:
        backbone, codebook, begin = self.pipe.backbone, self.pipe.codebook, time.perf_counter()
        assert codebook is not None, "list_systems() asks for it"
        header = build_header(CodecSettings(mode="vq", levels=levels), backbone, len(audio), codebook)
        header = replace(add_level(header, measure_level(audio)), code_model=0)
        codes = vq.to_levels(codebook.quantizer.encode(backbone.encode(self._mel(audio))))[:levels]
        encoder = vq.Encoder(codebook.quantizer, levels, BANDS)
        encoder.write(codes)
        data, z = pack(header, encoder.getvalue()), vq.decode_codes(codes, codebook.quantizer)
        return Coded(data, z, 0, time.perf_counter() - begin)

    def _measure_mel(self, audio: torch.Tensor, one: Coded) -> Row:
        mel = self.pipe.backbone.decode(one.z)
        return dict(encode_s=one.seconds, mel_db=mel_error_db(mel, self._mel(audio)))

    def _measure_audio(self, audio: torch.Tensor, one: Coded, clip: Clip) -> Row:
        backbone, begin = self.pipe.backbone, time.perf_counter()
        mel = backbone.decode(one.z)
        plain = backbone.vocode(mel)[0]
        refined = refine(plain, mel, backbone.mel_spec)[: len(audio)]
        row: Row = dict(sound_s=time.perf_counter() - begin, plain_db=log_mel_mae_db(audio, plain[: len(audio)]))
        return row | measure_decoded(audio, refined, clip.kind)

    def _peer(self, name: str, number: int) -> Row:
        clip, samples = self.clips[number]
        coded = self.peers[name].code(torch.from_numpy(samples), None)
        row = self._row(name, number, b"\0" * coded.size, 0) | dict(encode_s=coded.encode_s, sound_s=coded.decode_s)
        return row | measure_decoded(torch.from_numpy(samples), coded.audio, clip.kind)

    def _row(self, name: str, number: int, data: bytes, calls: int) -> Row:
        clip, samples = self.clips[number]
        return dict(system=name, kind=clip.kind, clip=clip_key(clip, number), seconds=len(samples) / SAMPLE_RATE,
                    bytes=len(data), unet_calls=calls)  # fmt: skip


def clip_key(clip: Clip, number: int) -> str:
    return f"{clip.path}#{number}"


def read_clips(args: argparse.Namespace) -> list:
    return validation(Corpus(args.corpus), args.seconds, *([args.clips] if args.clips else []))


def measure_decoded(audio: torch.Tensor, decoded: torch.Tensor, kind: str) -> Row:
    """Metrics of the audio that ``decompress`` writes. Perceptual metrics are for speech alone."""
    values = measure(audio, decoded, judges=True, speech=kind == "speech")
    return {"refined_db": values["log_mel_mae_db"]} | {name: values[name] for name in FIELDS if name in values}


@functools.cache
def _work(words: tuple[str, ...]) -> Work:
    return Work(arguments(words))


def _rows(words: tuple[str, ...], name: str, numbers: list[int]) -> list[Row]:
    return _work(words).rows(name, numbers, arguments(words).check)


def list_tasks(
    args: argparse.Namespace, names: list[str], done: set[tuple[str, str]]
) -> Iterator[tuple[str, list[int]]]:
    """(system, clips of one length) that are not measured yet."""
    clips = read_clips(args)
    for name in names:
        if not any(name.startswith(begin) for begin in args.only):
            continue
        numbers = range(len(clips))
        if name.startswith(SLOW):  # spread over the kinds
            numbers = numbers[:: max(1, len(numbers) // args.single)]
        left = [n for n in numbers if (name, clip_key(clips[n][0], n)) not in done]
        for group in in_lengths([clips[n][1] for n in left], args.most):
            yield name, [left[i] for i in group]


def arguments(words: tuple[str, ...] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--codebook", default="checkpoints/codebooks/pocket-1024", help="for vq; '' for none")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--clips", type=int, help="of each kind as many; default all 57")
    parser.add_argument("--seconds", type=float, default=5.12)
    parser.add_argument("--only", nargs="+", default=[""], help="systems whose names begin so")
    parser.add_argument("--gaussian_atoms", type=int, default=4096)
    parser.add_argument(
        "--single", type=int, default=8, help="clips of 'classic one atom', which takes ten times longer"
    )
    parser.add_argument("--most", type=int, default=12, help="clips that go into a UNet call at most")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--check", action="store_true", help="decode the first clip of each group from its bytes")
    parser.add_argument("--out", type=Path, default=Path("docs/codec"), help="written with .csv, .md and .png")
    return parser.parse_args(words)


def main() -> None:
    args, words = arguments(), tuple(sys.argv[1:])
    target = args.out.with_suffix(".csv")
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = read_rows(target)
    done = {(row["system"], row["clip"]) for row in rows}
    names = [*list_systems(args), *list_peers()]
    todo = list(list_tasks(args, names, done))
    todo.sort(key=lambda task: task[0].startswith(SLOW), reverse=True)  # the longest first
    begin = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with target.open("w", newline="") as file, ProcessPoolExecutor(args.workers, context) as pool:
        writer = csv.DictWriter(file, FIELDS, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        file.flush()
        futures = [pool.submit(_rows, words, *task) for task in todo]
        for future in tqdm(as_completed(futures), total=len(futures), desc="groups of clips"):
            for row in future.result():
                cells = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()}
                writer.writerow(cells)
                rows.append({field: cells.get(field, "") for field in FIELDS})
            file.flush()
    print(f"{len(todo)} groups of clips in {time.perf_counter() - begin:.0f} s with {args.workers} processes")
    rows.sort(key=lambda row: names.index(row["system"]) if row["system"] in names else len(names))
    text = write_page(rows, shlex.join(["python", "-m", "benchmarks.codec", *words]), args.backbone, args.out.stem)
    args.out.with_suffix(".md").write_text(text)
    plot(rows, args.out.with_suffix(".png"))
    print(text, end="")


if __name__ == "__main__":
    main()
