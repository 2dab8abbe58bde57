"""Draw the README's picture: one recording through each stage.

python docs/picture.py            # writes docs/transform.png
"""

from __future__ import annotations

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from ddcm.audio import level, read_audio
from ddcm.mel import log_mel
from ddcm.metrics import log_mel_corr
from ddcm.pipeline import DDCMPipeline

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--audio", default="examples/speech.flac")
parser.add_argument("--out", default="docs/transform.png")
args = parser.parse_args()

pipe = DDCMPipeline.from_pretrained("checkpoints/pocket", "checkpoints/codebooks/pocket-1024")
audio = read_audio(args.audio)
panels: list[tuple[str, torch.Tensor]] = [
    ("input", audio),
    ("reconstruct", pipe.reconstruct(audio, 16000).audio),
    ("reconstruct --recipe quantised", pipe.reconstruct(audio, 16000, "quantised").audio),
]
for strength in (0.3, 0.6, 0.9):
    panels.append((f"transform --strength {strength}", pipe.transform(audio, 16000, strength=strength).audio))

figure, axes = plt.subplots(2, 3, figsize=(12, 5), sharex=True, sharey=True, layout="constrained")
for axis, (title, signal) in zip(axes.flat, panels, strict=True):
    mel = log_mel(level(signal)[0][None])[0, 0].T
    axis.imshow(mel, origin="lower", aspect="auto", cmap="magma", vmin=-11, vmax=1,
                extent=(0, len(signal) / 16000, 0, 64))  # fmt: skip
    axis.set_title(title if signal is audio else f"{title}   (corr {log_mel_corr(audio, signal):.2f})", fontsize=10)
for axis in axes[:, 0]:
    axis.set_ylabel("mel band")
for axis in axes[-1]:
    axis.set_xlabel("seconds")
figure.savefig(args.out, dpi=90)
