"""Draw the README's picture: spectrograms of a recording and of five results, with their metrics.

python scripts/picture.py            # writes docs/transform.png
"""

import argparse
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps, figure
from matplotlib.colors import to_rgb
from PIL import Image

from ddcm.audio.files import read_audio
from ddcm.evaluation.signal_metrics import SAMPLE_RATE, log_mel_corr, log_mel_mae_db
from ddcm.pipeline import DDCMPipeline
from ddcm.runtime.files import write_atomically

N_FFT, HOP, ROWS = 1024, 64, 240
LOWEST, HIGHEST = 60, 8000  # Hz: below 60 Hz the recording has only hum
RANGE_DB = (-75, 0)  # 0 dB is the input's loudest point
TICKS_KHZ = (0.25, 0.5, 1, 2, 4, 8)
TRANSFORMS = ((0.3, ""), (0.5, "game music, menu"), (0.7, "a drum loop"))
PAPER, INK, FAINT = "#fbfaf8", "#22212a", "#77747f"


@dataclass
class Panel:
    title: str
    caption: str
    audio: torch.Tensor
    """(S,) at 16 kHz, at the input's level."""


def make_panels(pipe: DDCMPipeline, audio: torch.Tensor, steps: int | None) -> list[Panel]:
    """The input and five results. ``steps`` replaces the denoising steps of each verb."""
    data = pipe.compress(audio, SAMPLE_RATE, kbps=1.0, steps=steps)
    rate, decoded = len(data) * 8 / 1000 / (len(audio) / SAMPLE_RATE), pipe.decompress(data).audio
    rebuilt = pipe.reconstruct(audio, SAMPLE_RATE, vocoder="refined").audio
    result = [
        Panel("input", f"{len(audio) / SAMPLE_RATE:.1f} s of 16 kHz audio", audio),
        Panel("reconstruct", f"mel → VAE → mel → vocoder, {log_mel_mae_db(audio, rebuilt):.1f} dB off", rebuilt),
        Panel(
            f"compress → decompress, {rate:.2f} kbps",
            f"{len(data)} bytes, {log_mel_mae_db(audio, decoded):.1f} dB off",
            decoded,
        ),
    ]
    for strength, prompt in TRANSFORMS:
        out = pipe.transform(audio, SAMPLE_RATE, prompt=prompt, strength=strength, steps=steps).audio
        caption = f"“{prompt}”" if prompt else "no prompt"
        correlation = f"correlation {log_mel_corr(audio, out):.2f}"
        result.append(Panel(f"transform, strength {strength:g}", f"{caption}, {correlation}", out))
    return result


def spectrogram(audio: torch.Tensor, loudest: float | None = None) -> tuple[np.ndarray, float]:
    """Audio (S,) -> decibels (ROWS, frames), rows evenly spaced on the mel scale, and the magnitude that is 0 dB."""
    window = torch.hann_window(N_FFT)
    magnitude = torch.stft(audio.float(), N_FFT, HOP, window=window, return_complex=True).abs()
    loudest = float(magnitude.max()) if loudest is None else loudest
    decibels = 20 * (magnitude / loudest).clamp(min=1e-6).log10()
    places = _hertz(np.linspace(_mel(LOWEST), _mel(HIGHEST), ROWS)) * N_FFT / SAMPLE_RATE
    below = torch.from_numpy(np.minimum(places.astype(int), N_FFT // 2 - 1))
    share = torch.from_numpy(places).float() - below
    return (decibels[below] * (1 - share)[:, None] + decibels[below + 1] * share[:, None]).numpy(), loudest


def draw(path: Path, shown: list[Panel]) -> None:
    """Write the panels in two rows with shared axes and one colour scale."""
    seconds = len(shown[0].audio) / SAMPLE_RATE
    sheet = figure.Figure(figsize=(12.4, 5.9), layout="constrained", dpi=110, facecolor=PAPER)
    sheet.get_layout_engine().set(w_pad=0.08, h_pad=0.1, wspace=0.02, hspace=0.04)
    axes = sheet.subplots(2, 3, sharex=True, sharey=True)
    loudest, image = None, None
    for axis, panel in zip(axes.flat, shown, strict=True):
        decibels, loudest = spectrogram(panel.audio, loudest)
        image = axis.imshow(
            decibels, origin="lower", aspect="auto", cmap="magma", vmin=RANGE_DB[0], vmax=RANGE_DB[1],
            extent=(0, seconds, 0, 1), interpolation="bilinear",
        )  # fmt: skip
        axis.set_title(panel.title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=20)
        axis.text(0, 1.025, panel.caption, transform=axis.transAxes, fontsize=9.5, color=FAINT, va="bottom")
        axis.tick_params(colors=FAINT, labelsize=9, length=3)
        for edge in axis.spines.values():
            edge.set_visible(False)
    low, high = _mel(LOWEST), _mel(HIGHEST)
    ticks = [(_mel(1000 * khz) - low) / (high - low) for khz in TICKS_KHZ]
    axes[0, 0].set_yticks(ticks, [f"{khz:g}" for khz in TICKS_KHZ])
    for axis in axes[:, 0]:
        axis.set_ylabel("frequency (kHz)", color=FAINT, fontsize=9.5)
    for axis in axes[1]:
        axis.set_xlabel("time (s)", color=FAINT, fontsize=9.5)
    bar = sheet.colorbar(image, ax=axes, fraction=0.018, pad=0.012, aspect=45)
    bar.set_label("dB below the input's loudest point", color=FAINT, fontsize=9.5)
    bar.ax.tick_params(colors=FAINT, labelsize=9, length=3)
    bar.outline.set_visible(False)
    drawn = io.BytesIO()
    sheet.savefig(drawn, format="png")
    with write_atomically(path) as temporary:
        reduced = Image.open(drawn).convert("RGB").quantize(palette=_palette(), dither=Image.Dither.NONE)
        reduced.save(temporary, "PNG", optimize=True)


def _palette() -> Image.Image:
    """256 colours, which halve the file size: those of the scale, and from ink to paper for the edges of letters."""
    shades = [*colormaps["magma"](np.linspace(0, 1, 208))[:, :3]]
    for ink in (INK, FAINT):
        shades += [*np.linspace(to_rgb(ink), to_rgb(PAPER), 24)]
    image = Image.new("P", (1, 1))
    image.putpalette([round(255 * part) for shade in shades for part in shade])
    return image


def _mel(hertz: float) -> float:
    return 1127 * float(np.log1p(hertz / 700))


def _hertz(mel: np.ndarray) -> np.ndarray:
    return 700 * np.expm1(mel / 1127)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audio", default="examples/speech.flac")
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--codebook", default="checkpoints/codebooks/pocket-1024")
    parser.add_argument("--steps", type=int, help="of the diffusion, to be quicker")
    parser.add_argument("--out", type=Path, default=Path("docs/transform.png"))
    args = parser.parse_args()
    pipeline = DDCMPipeline.from_pretrained(args.backbone, args.codebook)
    draw(args.out, make_panels(pipeline, read_audio(args.audio), args.steps))
    print(args.out)
