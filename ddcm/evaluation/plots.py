"""Draw spectrograms as PNG files. Matplotlib is used without its global state."""

import io
import math
from pathlib import Path
from typing import Any

import torch

from ddcm.audio.level import normalise_level
from ddcm.audio.mel import LN_TO_DB, MelSpec, band_centres, log_mel
from ddcm.errors import UserError
from ddcm.runtime.files import write_atomically

SCALE: dict[str, Any] = {"origin": "lower", "cmap": "magma", "vmin": -11.0, "vmax": 1.0}
"""Colours of a log-mel in nats: from the floor to a loud band at peak 0.5."""
TICKS_KHZ = (0.25, 0.5, 1, 2, 4, 8)
Panels = list[tuple[str, torch.Tensor]]  # (title, log-mel (T, M))


def compute_mel(audio: torch.Tensor, sample_rate: int = 16000) -> torch.Tensor:
    """Audio (S,) -> levelled log-mel (T, M); at least one frame."""
    spec = MelSpec(sample_rate=sample_rate)
    audio = torch.nn.functional.pad(normalise_level(audio)[0], (0, max(0, spec.hop - len(audio))))
    return log_mel(audio[None], spec)[0, 0]


def encode_thumbnail(mel: torch.Tensor, width: int = 600) -> bytes:
    """Log-mel (T, M) -> PNG without axes, one pixel a band; more than ``width`` frames are averaged to ``width``."""
    _, image = _import_matplotlib()
    if len(mel) > width:
        mel = torch.nn.functional.adaptive_avg_pool1d(mel.T[None], width)[0].T
    buffer = io.BytesIO()
    image.imsave(buffer, mel.T.numpy(), format="png", **SCALE)
    return buffer.getvalue()


def draw_sheet(
    path: Path, panels: Panels, columns: int = 4, panel_size: tuple[float, float] = (3.4, 1.9), dpi: int = 100,
    spec: MelSpec | None = None,
) -> None:  # fmt: skip
    """Write panels in rows to one PNG, with axes in seconds and kHz. ``panel_size`` is in inches."""
    figures, _ = _import_matplotlib()
    spec, columns, (width, height) = spec or MelSpec(), min(columns, len(panels)), panel_size
    rows = math.ceil(len(panels) / columns)
    figure = figures.Figure(figsize=(width * columns, height * rows + 0.3), layout="constrained", dpi=dpi)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, mel) in zip(axes.flat, panels, strict=False):
        extent = (0, len(mel) * spec.hop / spec.sample_rate, 0, mel.shape[1])
        image = axis.imshow(mel.T, aspect="auto", extent=extent, **SCALE)
        axis.set_title(title, fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    bands, ticks = torch.tensor(band_centres(spec)), [khz for khz in TICKS_KHZ if khz * 1000 <= spec.fmax]
    axes[0, 0].set_yticks([float(torch.searchsorted(bands, khz * 1000)) for khz in ticks], [f"{k:g}" for k in ticks])
    for axis in axes[:, 0]:
        axis.set_ylabel("kHz", fontsize=8)
    for axis in axes.flat[max(0, len(panels) - columns) : len(panels)]:  # the lowest panel of each column
        axis.set_xlabel("seconds", fontsize=8)
        axis.tick_params(labelbottom=True)
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=30)
    marks = (0, -30, -60, -90)
    bar.set_ticks([SCALE["vmax"] + mark / LN_TO_DB for mark in marks], labels=marks)
    bar.set_label("dB", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    with write_atomically(Path(path)) as temporary:
        figure.savefig(temporary, format="png")


def draw_curves(path: Path, label: str, title: str, curves: dict[str, list[tuple[float, float, float]]]) -> None:
    """Write curves over the rate to a PNG: name -> points of (kbps, value, half of the value's interval or NaN)."""
    figures, _ = _import_matplotlib()
    figure = figures.Figure(figsize=(7, 4.5), layout="constrained", dpi=110)
    axes = figure.subplots()
    for name, points in curves.items():
        rates, values, halves = zip(*sorted(points), strict=True)
        bars = [0.0 if math.isnan(half) else half for half in halves]
        axes.errorbar(rates, values, bars, fmt="o-", capsize=3, markersize=4, label=name)
    axes.set(xscale="log", xlabel="kbps of the files", ylabel=label)
    axes.set_title(title, fontsize=9, loc="left")
    exponents = [math.log2(rate) for points in curves.values() for rate, *_ in points]
    doubling = [2.0**exponent for exponent in range(math.floor(min(exponents)), math.ceil(max(exponents)) + 1)]
    axes.set_xticks(doubling, [f"{rate:g}" for rate in doubling])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)  # outside: inside it covers points
    with write_atomically(Path(path)) as temporary:
        figure.savefig(temporary, format="png")


def _import_matplotlib():
    try:
        from matplotlib import figure, image
    except ImportError as error:
        raise UserError("pictures need matplotlib: pip install 'ddcm[report]'") from error
    return figure, image
