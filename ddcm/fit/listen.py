"""Spectrograms and sound of latents before and after quantisation, for TensorBoard."""

from __future__ import annotations

from typing import Any

import torch

from ddcm.backbone import Backbone
from ddcm.mel import LN_TO_DB


def log_mel_mae_db(backbone: Backbone, before: torch.Tensor, after: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
    """Mean absolute difference in dB of what z (B, C, L, F) before and after decode to, and both mels."""
    mels = [backbone.decode(z) for z in (before, after)]
    return float((mels[0] - mels[1]).abs().mean()) * LN_TO_DB, mels


def show(board: Any, backbone: Backbone, mels: list[torch.Tensor], step: int) -> None:
    """The first window of mels (B, 1, T, M) before and after, as a picture pair and as sound.

    Args:
        board: a TensorBoard ``SummaryWriter``.
    """
    # The object interface: pyplot would keep figures, and would pick a window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    low, high = float(mels[0][0].min()), float(mels[0][0].max())
    for axes, mel, title in zip(figure.subplots(2, 1, sharex=True), mels, ("before", "after"), strict=True):
        axes.imshow(mel[0, 0].T.cpu(), origin="lower", aspect="auto", vmin=low, vmax=high)
        axes.set(title=f"log-mel {title} quantisation", ylabel="band")
    axes.set_xlabel("frame (10 ms)")
    board.add_figure("mel", _image_ready(figure), step)
    for mel, name in zip(mels, ("before", "after"), strict=True):
        board.add_audio(f"audio/{name}", backbone.vocode(mel[:1])[0], step, backbone.mel_spec.sample_rate)


def _image_ready(figure: Any) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    return figure
