"""The two noise codebooks in one run: time of a choice, and quality at equal rate.

    python -m benchmarks.noise_codebooks --corpus runs/corpus [--clips 8] [--atoms 16384] [--numbers 32768]

Selection is correlate and choose for one step of one window. Quality is the mel's error over the uncoded one's at the
same file size on validation clips, each clip with both codebooks, so that the difference has a spread. All clips are
coded in the same UNet calls, and the gaussian atoms drawn once for all of them.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks.together import compress
from ddcm.audio.mel import log_mel, mel_error_db
from ddcm.backbone import load
from ddcm.codec import selection
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.header import ceil_log2
from ddcm.codec.noise_codebooks import NOISE_CODEBOOKS


def selection_seconds(kind: str, numbers: int, log2_atoms: int, count: int, repeats: int) -> float:
    """Median CPU time of a step's choice: what else the machine does is not in it."""
    codebook, residual, times = NOISE_CODEBOOKS[kind](0, numbers, log2_atoms), torch.randn(numbers), []
    for step in range(repeats):
        begin = time.process_time()
        selection.choose_largest(codebook.correlate(0, step, residual), count)
        times.append(time.process_time() - begin)
    return statistics.median(times)


def losses_db(backbone, audios: list[torch.Tensor], settings: CodecSettings) -> list[float]:
    """Mel error over the uncoded mel, in dB, of clips (S,) of one length."""
    losses = []
    for audio, coded in zip(audios, compress(audios, backbone, settings), strict=True):
        clean = backbone.decode(backbone.encode(log_mel(audio[None], backbone.mel_spec)))
        losses.append(mel_error_db(backbone.decode(coded.z), clean))
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--clips", type=int, default=8, help="0: selection alone")
    parser.add_argument("--seconds", type=float, default=2.56)
    parser.add_argument("--kbps", type=float, default=1.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--atoms", type=int, default=16384)
    parser.add_argument("--numbers", type=int, default=32768)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    sizes = {"gaussian": ceil_log2(args.atoms), "hadamard": ceil_log2(args.numbers)}
    seconds = {
        kind: selection_seconds(kind, args.numbers, size, 30, args.repeats * (1 if kind == "gaussian" else 20))
        for kind, size in sizes.items()
    }
    print("| codebook | atoms | choice of a step, CPU ms |\n|---|---|---|")
    for kind, size in sizes.items():
        print(f"| {kind} | {1 << size} | {seconds[kind] * 1000:.2f} |")
    print(f"\ngaussian / hadamard: {seconds['gaussian'] / seconds['hadamard']:.0f} (n = {args.numbers})")
    if not args.clips:
        return
    from pocket.batches import validation
    from pocket.corpus import SAMPLE_RATE, Corpus

    backbone, size = load(args.backbone), round(args.seconds * SAMPLE_RATE)
    clips = [clip for _, clip in validation(Corpus(args.corpus), args.seconds) if len(clip) == size]
    audios = [torch.from_numpy(clip) for clip in clips[:: max(1, len(clips) // args.clips)][: args.clips]]
    losses: dict[str, list[float]] = {}
    for kind in sizes:
        begin = time.perf_counter()
        settings = CodecSettings(kbps=args.kbps, book=kind, noise_atoms=args.atoms, steps=args.steps)
        losses[kind] = losses_db(backbone, audios, settings)
        print(f"{kind}: {len(audios)} clips in {time.perf_counter() - begin:.0f} s", flush=True)
    differences = [h - g for h, g in zip(losses["hadamard"], losses["gaussian"], strict=True)]
    spread = statistics.stdev(differences) if len(differences) > 1 else float("nan")
    for kind, values in losses.items():
        print(f"{kind}: {statistics.mean(values):.3f} dB over the uncoded mel at {args.kbps:g} kbps")
    mean = statistics.mean(differences)
    print(f"hadamard - gaussian: {mean:+.3f} dB, standard deviation {spread:.3f}, {len(audios)} clips")


if __name__ == "__main__":
    with torch.no_grad():
        main()
