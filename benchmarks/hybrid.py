"""How mode hybrid splits a rate between the trajectory and the levels of the codebook: what each split reaches.

    python -m benchmarks.hybrid --corpus runs/corpus [--rates 2 3 4 6 8] [--page docs/explanation.md]

Training clips, each compressed as by ``ddcm compress``. A level of 8 atoms takes 1.2 kbps, and the trajectory what
is left: no level is mode turbo. ``FROM_KBPS`` and ``TRAJECTORY_KBPS`` of ``ddcm.codec.hybrid`` follow from the table.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.marks import fill
from benchmarks.trial import read_training_clips
from ddcm.audio.layout import even_layout
from ddcm.audio.level import measure_level
from ddcm.audio.mel import mel_error_db
from ddcm.audio.windows import window_mel
from ddcm.backbone import Backbone, load
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.compress import compress
from ddcm.codec.hybrid import count_levels
from ddcm.quantize.pretrained import Codebook, load_codebook


def measure(
    backbone: Backbone, codebook: Codebook, clips: Sequence[torch.Tensor], settings: CodecSettings
) -> tuple[float, float, float]:
    """(kbps, error of the decoded mel in dB, processor time of the encoder for a second of audio), means of clips."""
    size, begin = 0, time.process_time()
    errors: list[float] = []
    latents: list[torch.Tensor] = []
    for clip in clips:
        size += len(compress(clip, backbone, settings, codebook, on_latent=latents.append))
    seconds, spent = sum(map(len, clips)) / backbone.mel_spec.sample_rate, time.process_time() - begin
    for clip, z in zip(clips, latents, strict=True):
        layout = even_layout(len(clip), backbone.mel_spec.hop)
        mel = window_mel(clip, measure_level(clip), layout, 0, backbone.mel_spec)
        errors.append(mel_error_db(backbone.decode(z), mel))
    return size / 125 / seconds, sum(errors) / len(errors), spent / seconds


def measure_splits(args: argparse.Namespace) -> str:
    """The table in Markdown: a line for each rate and number of levels, and for each number of levels of mode vq."""
    backbone, codebook = load(args.backbone), load_codebook(args.codebook)
    clips = read_training_clips(args.corpus, args.seconds, args.clips)
    lines = ["| mode | levels | kbps | mel, dB | encoder, s for 1 s |", "|---|---|---|---|---|"]

    def add(name: str, levels: int, settings: CodecSettings) -> None:
        kbps, error, spent = measure(backbone, codebook, clips, settings)
        lines.append(f"| {name} | {levels} | {kbps:.2f} | {error:.3f} | {spent:.1f} |")
        print(lines[-1], flush=True)

    for kbps in tqdm(args.rates, desc="rates"):
        own = count_levels(CodecSettings(kbps=kbps, mode="hybrid"), codebook)
        add("**turbo**" if own == 0 else "turbo", 0, CodecSettings(kbps=kbps))
        for levels in range(max(1, own - args.beside), own + args.beside + 1):
            if kbps - 1.2 * levels > 0.3 and levels <= codebook.quantizer.num_quantizers:
                name = "**hybrid**" if levels == own else "hybrid"
                add(name, levels, CodecSettings(kbps=kbps, mode="hybrid", levels=levels))
    for levels in range(1, codebook.quantizer.num_quantizers + 1):
        add("vq", levels, CodecSettings(mode="vq", levels=levels))
    return "\n".join([*lines, "", f"{len(clips)} training clips of {args.seconds:g} s; in bold what the mode chooses."])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--codebook", default="pocket-residual")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--rates", type=float, nargs="+", default=[2.0, 3.0, 4.0, 6.0, 8.0])
    parser.add_argument("--beside", type=int, default=1, help="levels that are tried beside those of the mode")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2.56)
    parser.add_argument("--page", type=Path, help="a page to put the table into, such as docs/explanation.md")
    args = parser.parse_args()
    with torch.no_grad():
        text = measure_splits(args)
    print(text)
    if args.page:
        fill(args.page, "benchmarks.hybrid", text)
