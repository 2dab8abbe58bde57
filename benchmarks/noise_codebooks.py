"""One Hadamard basis, several, and gaussian atoms in one run: time of a step, and quality at equal rate.

    python -m benchmarks.noise_codebooks --corpus runs/corpus [--clips 8] [--numbers 32768] [--page docs/explanation.md]

The choice is correlate and choose for one step of one window; the noise is what a decoder makes of it. Efficiency is
the power of random numbers that the noise explains, over 1 - 2^(-2 R / n), which no noise of R bits exceeds. Quality is
the error of the decoded mel over that of the uncoded latent, at the same size of the file, on validation clips, each
with all codebooks, so that differences have a spread. All clips are coded in the same UNet calls, and the gaussian
atoms drawn once for all of them.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.marks import fill
from benchmarks.together import compress
from ddcm.audio.mel import log_mel, mel_error_db
from ddcm.backbone import load
from ddcm.codec import selection
from ddcm.codec.bitstream import split_evenly, subset_bits
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.header import ceil_log2
from ddcm.codec.noise_codebooks import NOISE_CODEBOOKS, NoiseCodebook

ATOMS = 30  # of a step, for the times


def make_codebook(settings: CodecSettings, numbers: int) -> NoiseCodebook:
    log2_atoms = ceil_log2(settings.noise_atoms if settings.book == "gaussian" else numbers)
    return NOISE_CODEBOOKS[settings.book](0, numbers, log2_atoms, settings.bases)


def step_seconds(settings: CodecSettings, numbers: int, count: int, repeats: int) -> tuple[float, float]:
    """Median CPU times of a step's choice and of its noise: what else the machine does is not in them."""
    codebook = make_codebook(settings, numbers)
    residual, choices, noises = torch.randn(numbers), [], []
    for step in range(repeats):
        begin = time.process_time()
        choice = selection.choose_largest(codebook.correlate(0, step, residual, count), count)
        middle = time.process_time()
        codebook.synthesize(0, step, *choice)
        choices.append(middle - begin)
        noises.append(time.process_time() - middle)
    return statistics.median(choices), statistics.median(noises)


def efficiency(settings: CodecSettings, numbers: int, count: int, repeats: int) -> float:
    codebook = make_codebook(settings, numbers)
    bits = subset_bits(codebook.atoms, split_evenly(count, min(count, settings.bases))) + count
    generator, shares = torch.Generator().manual_seed(0), []
    for step in range(repeats):
        residual = torch.randn(numbers, generator=generator)
        atoms, weights = selection.choose_largest(codebook.correlate(0, step, residual, count), count)
        noise = codebook.synthesize(0, step, atoms, weights)
        shares.append(float(torch.cosine_similarity(noise, residual, dim=0)) ** 2)
    return statistics.mean(shares) / (1 - 2 ** (-2 * bits / numbers))


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
    parser.add_argument("--atoms", type=int, default=16384, help="of the gaussian codebook")
    parser.add_argument("--bases", type=int, nargs="+", default=[1, 4, 32, 128])
    parser.add_argument("--numbers", type=int, default=32768, help="of a window's latent, for the times")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--page", type=Path, help="a page to put the table into, such as docs/explanation.md")
    args = parser.parse_args()
    settings = {
        f"hadamard, {n} {'basis' if n == 1 else 'bases'}": CodecSettings(kbps=args.kbps, bases=n, steps=args.steps)
        for n in args.bases
    }
    gaussian = CodecSettings(kbps=args.kbps, book="gaussian", noise_atoms=args.atoms, bases=1, steps=args.steps)
    settings[f"gaussian, {args.atoms} atoms"] = gaussian
    losses: dict[str, list[float]] = {}
    if args.clips:
        from pocket.batches import validation
        from pocket.corpus import SAMPLE_RATE, Corpus

        backbone, size = load(args.backbone), round(args.seconds * SAMPLE_RATE)
        clips = [clip for _, clip in validation(Corpus(args.corpus), args.seconds) if len(clip) == size]
        audios = [torch.from_numpy(clip) for clip in clips[:: max(1, len(clips) // args.clips)][: args.clips]]
        losses = {name: losses_db(backbone, audios, each) for name, each in tqdm(settings.items(), desc="codebooks")}
    head = ("codebook", f"choice of {ATOMS} atoms, ms", "their noise, ms", "efficiency", f"dB at {args.kbps:g} kbps")
    lines = [f"| {' | '.join(head)} | under the first |", "|" + "---|" * 6]
    first = next(iter(losses.values()), [])
    for name, each in settings.items():
        repeats = args.repeats * (20 if each.book == "hadamard" else 1)
        seconds = step_seconds(each, args.numbers, ATOMS, repeats)
        gaps = [a - b for a, b in zip(first, losses.get(name, []), strict=False)]
        spread = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else float("nan")
        cells = [
            name,
            *(f"{1000 * value:.1f}" for value in seconds),
            f"{efficiency(each, args.numbers, ATOMS, repeats):.2f}",
        ]
        cells += (
            [f"{statistics.mean(losses[name]):.3f}", f"{statistics.mean(gaps):.3f} ({spread:.3f})"]
            if gaps
            else ["-", "-"]
        )
        lines.append(f"| {' | '.join(cells)} |")
    text = "\n".join(
        [
            *lines,
            "",
            f"{len(first)} validation clips of {args.seconds:g} s, differences clip by clip with their standard "
            f"error; processor time of a window of {args.numbers} numbers.",
        ]
    )
    print(text)
    if args.page:
        fill(args.page, "benchmarks.noise_codebooks", text)


if __name__ == "__main__":
    with torch.no_grad():
        main()
