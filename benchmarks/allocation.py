"""Bits shared out among the windows of a file by how hard they are, against the same for all.

    python -m benchmarks.allocation --corpus runs/corpus [--rates 1 2] [--page docs/explanation.md]

Recordings are four training clips of 10.24 s: of four kinds, of one kind, or of one long recording.
Errors are those of the decoded mels against the recording's, before any vocoder.
"""

import argparse
import itertools
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.marks import fill
from ddcm.audio.level import measure_level
from ddcm.audio.mel import mel_error_db
from ddcm.audio.windows import window_mel
from ddcm.backbone import Backbone, load
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.compress import compress
from ddcm.codec.format import unpack
from pocket.batches import level
from pocket.corpus import KINDS, Corpus

WINDOW = 163840


def make_recordings(corpus: Corpus, count: int) -> dict[str, list[torch.Tensor]]:
    """Row of the table -> recordings (S,) of four windows each; clips are levelled before they are joined."""

    def pick(kind: str, windows: int) -> list[list[torch.Tensor]]:
        """Long clips, spread over those of the kind, as pieces."""
        long = [clip for clip in corpus.of("train", kind) if clip.length >= windows * WINDOW]
        chosen = long[:: max(1, len(long) // (4 * count))][: 4 * count]
        sounds = [torch.from_numpy(level(corpus.audio(clip, 0, windows * WINDOW))) for clip in chosen]
        return [list(sound.split(WINDOW)) for sound in sounds]

    short = {kind: [pieces[0] for pieces in pick(kind, 1)] for kind in KINDS}
    rows = {"four kinds": [torch.cat([short[kind][i] for kind in KINDS]) for i in range(count)]}
    alike = [
        torch.cat(list(own[:4])) for own in itertools.islice(itertools.cycle(short.values()), count) if len(own) > 3
    ]
    rows["four clips of one kind"] = alike
    rows["one long recording"] = [torch.cat(pieces) for kind in KINDS for pieces in pick(kind, 4)[:1]][:count]
    return rows


def measure(backbone: Backbone, audio: torch.Tensor, settings: CodecSettings) -> float:
    """dB between the decoded mels and those of the recording."""
    latents: list[torch.Tensor] = []
    layout = unpack(compress(audio, backbone, settings, on_latent=latents.append))[0].layout
    errors = []
    for index, z in enumerate(latents):
        mel = window_mel(audio, measure_level(audio), layout, index, backbone.mel_spec)
        errors.append(mel_error_db(backbone.decode(z), mel))
    return sum(errors) / len(errors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--recordings", type=int, default=4, help="of each row")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--page", type=Path, help="a page to put the table into, such as docs/explanation.md")
    args = parser.parse_args()
    head = [
        "four windows",
        *(f"{rate:g} kbps: {what}" for rate in args.rates for what in ("alike, dB", "shared out, dB")),
    ]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    with torch.no_grad():
        backbone = load(args.backbone)
        rows = make_recordings(Corpus(args.corpus), args.recordings)
        with tqdm(total=2 * len(args.rates) * sum(map(len, rows.values())), desc="recordings") as bar:
            for name, recordings in rows.items():
                cells = [f"{name} ({len(recordings)})"]
                for rate, allocate in itertools.product(args.rates, (False, True)):
                    settings = CodecSettings(kbps=rate, steps=args.steps, mel_weight=0, allocate=allocate)
                    errors = []
                    for audio in recordings:
                        errors.append(measure(backbone, audio, settings))
                        bar.update()
                    cells.append(f"{sum(errors) / len(errors):.3f}")
                lines.append(f"| {' | '.join(cells)} |")
    text = "\n".join(
        [*lines, "", f"{args.steps} UNet calls; the noise is chosen for the latent alone, which is faster."]
    )
    print(text)
    if args.page:
        fill(args.page, "benchmarks.allocation", text)
