"""Solve how to spend steps and bits on a backbone: the table that ``--kbps`` is looked up in.

    python -m benchmarks.schedules --audio FOLDER [--backbone NAME] [--out ddcm/codec/schedules.json]
    python -m benchmarks.schedules --corpus runs/corpus       # the training clips that the pocket was made from

For each rate and each number of steps, the exponents of the curves (``ddcm.container.Curve``) are searched by
coordinates from a few starts: what is moved one step at a time, as long as the mean error of the coded clips' mels
against the uncoded ones' falls. The table is written after each rate, and a rerun goes on from there. Use the rows
elsewhere with ``compress --schedules FILE``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch

from ddcm.audio import find_audio, level, read_audio
from ddcm.backbone import load
from ddcm.bits import BitWriter
from ddcm.codec.decode import sampler_for
from ddcm.codec.encode import Settings, start
from ddcm.codec.layout import Layout, layout, window_bits
from ddcm.codec.plan import SHIPPED, nearest
from ddcm.codec.trajectory import encode_windows
from ddcm.container import Curve
from ddcm.errors import UserError
from ddcm.files import whole
from ddcm.mel import LN_TO_DB, log_mel

STRIDES = {"power": (8, 4), "growth": (8, 4)}  # sixteenths, coarse then fine


def clips_of(paths: Iterable[Path], seconds: float, count: int, rate: int) -> list[torch.Tensor]:
    """The first ``count`` recordings that are long enough, cut from their middle, at AudioLDM2's level."""
    size, found = round(seconds * rate / 640) * 640, []
    for path in paths:
        audio = read_audio(path, rate)
        if len(audio) >= size and len(found) < count:
            begin = (len(audio) - size) // 2
            found.append(level(audio[begin : begin + size])[0])
    return found


def corpus_clips(folder: Path, seconds: float, count: int) -> list[torch.Tensor]:
    """Training clips of the pool, kinds in turn, spread over each kind; never a validation clip."""
    from pocket.corpus import KINDS, Corpus

    corpus, size, found = Corpus(folder), round(seconds * 25) * 640, []
    each = -(-count // len(KINDS))
    for kind in KINDS:
        long = [clip for clip in corpus.of("train", kind) if clip.length >= size]
        for clip in long[:: max(1, len(long) // each)][:each]:
            audio = torch.from_numpy(corpus.audio(clip, (clip.length - size) // 2, size))
            found.append(level(audio)[0])
    return found[:count]


def loss_of(backbone, z: torch.Tensor, clean: torch.Tensor, samples: int, placed: Layout, book: str) -> Callable:
    """``loss(curve without total, kbps) -> dB`` of the decoded mels against the uncoded ones'."""
    stream = start(backbone, Settings(book=book), samples, None, 1)

    def loss(curve: Curve, kbps: float) -> float:
        bits = kbps * 1000 * samples / stream.mel[0]
        of = lambda total: replace(stream, schedule=replace(curve, total=total))  # noqa: E731
        chosen = of(nearest(lambda total: window_bits(of(total)), bits, 1, 40_000))
        errors = []
        for number, target in enumerate(z.split(1)):
            sampler = sampler_for(chosen, backbone)
            result = encode_windows(chosen, placed, sampler, target, [number], BitWriter())
            errors.append((backbone.decode(result).cpu() - clean[number : number + 1]).abs().mean())
        return float(torch.stack(errors).mean()) * LN_TO_DB

    return loss


def search(loss: Callable[[Curve], float], begin: Curve) -> tuple[Curve, float]:
    """Coordinate search over the two exponents; every curve is measured once."""
    seen: dict[Curve, float] = {}

    def measured(curve: Curve) -> float:
        if curve not in seen:
            seen[curve] = loss(curve)
            print(f"    power {curve.power / 16:g} growth {curve.growth / 16:g}: {seen[curve]:.3f} dB", flush=True)
        return seen[curve]

    best = begin
    for strides in zip(*STRIDES.values(), strict=True):
        moved = True
        while moved:
            moved = False
            for name, stride in zip(STRIDES, strides, strict=True):
                for step in (stride, -stride):
                    value = getattr(best, name) + step
                    if not (1 if name == "power" else 0) <= value <= 255:
                        continue
                    other = replace(best, **{name: value})
                    if measured(other) < measured(best):
                        best, moved = other, True
    return best, measured(best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--audio", type=Path, help="a folder of recordings")
    parser.add_argument("--corpus", type=Path, help="or a corpus of pocket.corpus: its training clips")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.25, 0.5, 1.0, 2.0, 4.0])
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 30])
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.56)
    parser.add_argument("--book", default="hadamard")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    backbone = load(args.backbone, device=args.device)
    rate = backbone.mel_spec.sample_rate
    if args.corpus:
        clips = corpus_clips(args.corpus, args.seconds, args.clips)
    elif args.audio:
        clips = clips_of((path for path, _ in find_audio([args.audio])), args.seconds, args.clips, rate)
    else:
        parser.error("give --audio or --corpus")
    if not clips:
        raise UserError(f"no recording of {args.seconds} s and more")
    samples = len(clips[0])
    mels = [log_mel(clip[None], backbone.mel_spec) for clip in clips]
    with torch.no_grad():
        z = torch.cat([backbone.encode(mel) for mel in mels])
        clean = torch.cat([backbone.decode(row).cpu() for row in z.split(1)])
        loss = loss_of(backbone, z, clean, samples, layout(samples, backbone.mel_spec.hop), args.book)
        entries = json.loads(args.out.read_text()) if args.out.exists() else []
        entry = next((e for e in entries if e["backbone"] == backbone.digest), None)
        if entry is None:
            entry = {"backbone": backbone.digest, "name": args.backbone, "rows": []}
            entries = [entry, *(e for e in entries if e["backbone"])]  # its own rows replace guesses
        for kbps in args.rates:
            for steps in args.steps:
                if any(row["kbps"] == kbps and row["steps"] == steps for row in entry["rows"]):
                    continue
                print(f"{kbps:g} kbps, {steps} steps", flush=True)
                even = loss(Curve(steps, 16, 0, 1), kbps)
                starts = (Curve(steps, 16, 0, 1), Curve(steps, 32, 8, 1))
                begin = min(starts, key=lambda curve, kbps=kbps: loss(curve, kbps))
                best, error = search(lambda curve, kbps=kbps: loss(curve, kbps), begin)
                row = dict(kbps=kbps, steps=steps, power=best.power, growth=best.growth, loss=round(error, 4))
                entry["rows"].append(row | dict(even=round(even, 4), clips=len(clips)))
                with whole(args.out) as temporary:
                    temporary.write_text(json.dumps(entries, indent=1) + "\n")
    print("| kbps | steps | power | growth | loss, dB | even steps and atoms, dB |\n|---|---|---|---|---|---|")
    for row in entry["rows"]:
        exponents = f"{row['power'] / 16:g} | {row['growth'] / 16:g}"
        print(f"| {row['kbps']:g} | {row['steps']} | {exponents} | {row['loss']:.3f} | {row['even']:.3f} |")


if __name__ == "__main__":
    main()
