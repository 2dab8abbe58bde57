"""Spectrograms as pictures. Matplotlib is used without its global state."""

from __future__ import annotations

import io
import math
from pathlib import Path

import torch

from ddcm.audio.files import level
from ddcm.audio.mel import LN_TO_DB, MelSpec, band_centres, log_mel
from ddcm.errors import UserError
from ddcm.runtime.files import whole

RANGE = (-11.0, 1.0)  # nats of log-mel, black to white: the floor, and a loud band at peak 0.5
COLOURS = "magma"


def mel_of(audio: torch.Tensor, sample_rate: int = 16000) -> torch.Tensor:
    """Audio (S,) -> the matched log-mel (T, M), levelled; one frame at least."""
    spec = MelSpec(sample_rate=sample_rate)
    audio = torch.nn.functional.pad(level(audio)[0], (0, max(0, spec.hop - len(audio))))
    return log_mel(audio[None], spec)[0, 0]


def thumbnail(mel: torch.Tensor, width: int = 600) -> bytes:
    """Log-mel (T, M) -> a bare PNG, one pixel a band; longer than ``width`` frames are averaged down to it."""
    _, image = _matplotlib()
    if len(mel) > width:
        mel = torch.nn.functional.adaptive_avg_pool1d(mel.T[None], width)[0].T
    buffer = io.BytesIO()
    image.imsave(buffer, mel.T.numpy(), format="png", cmap=COLOURS, vmin=RANGE[0], vmax=RANGE[1], origin="lower")
    return buffer.getvalue()


def sheet(path: Path, panels: list[tuple[str, torch.Tensor]], columns: int = 4, seconds: float | None = None) -> None:
    """Titled log-mels (T, M) on one PNG, whole or not at all. ``seconds`` of a panel; by default 10 ms a frame."""
    figures, _ = _matplotlib()
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = figures.Figure(figsize=(3.4 * columns, 1.9 * rows + 0.3), layout="constrained", dpi=100)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, mel) in zip(axes.flat, panels, strict=False):
        extent = (0, seconds or len(mel) / 100, 0, mel.shape[1])
        axis.imshow(mel.T, origin="lower", aspect="auto", cmap=COLOURS, vmin=RANGE[0], vmax=RANGE[1], extent=extent)
        axis.set_title(title, fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel("mel band", fontsize=8)
    for number in range(max(0, len(panels) - columns), len(panels)):  # the lowest panel of each column
        axes.flat[number].set_xlabel("seconds", fontsize=8)
        axes.flat[number].tick_params(labelbottom=True)
    with whole(Path(path)) as temporary:
        figure.savefig(temporary, format="png")


def side_by_side(path: Path, panels: list[tuple[str, torch.Tensor]], spec: MelSpec) -> None:
    """One or two titled log-mels (T, M) beside each other on one wide PNG, with seconds and kHz; for a page."""
    figures, _ = _matplotlib()
    figure = figures.Figure(figsize=(10, 3.1), layout="constrained", dpi=160)
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    bands = torch.tensor(band_centres(spec))
    for axis, (title, mel) in zip(axes, panels, strict=True):
        extent = (0, len(mel) * spec.hop / spec.sample_rate, 0, mel.shape[1])
        drawn = axis.imshow(
            mel.T, origin="lower", aspect="auto", cmap=COLOURS, vmin=RANGE[0], vmax=RANGE[1], extent=extent
        )
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("seconds", fontsize=9)
        axis.tick_params(labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    ticks = [khz for khz in (0.25, 0.5, 1, 2, 4, 8) if khz * 1000 <= spec.fmax]
    axes[0].set_yticks([float(torch.searchsorted(bands, khz * 1000)) for khz in ticks], [f"{khz:g}" for khz in ticks])
    axes[0].set_ylabel("kHz", fontsize=9)
    scale = figure.colorbar(drawn, ax=list(axes), pad=0.01, aspect=30)
    scale.set_label("dB", fontsize=9)
    marks = (0, -30, -60, -90)
    scale.set_ticks([RANGE[1] + mark / LN_TO_DB for mark in marks], labels=marks)
    scale.ax.tick_params(labelsize=8)
    scale.outline.set_visible(False)
    with whole(Path(path)) as temporary:
        figure.savefig(temporary, format="png")


def _matplotlib():
    try:
        from matplotlib import figure, image
    except ImportError as error:
        raise UserError("pictures need matplotlib: pip install 'ddcm[report]'") from error
    return figure, image
