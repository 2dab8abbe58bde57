"""Spectrograms, sound and the codebook itself, for TensorBoard."""

from __future__ import annotations

from typing import Any

import torch

from ddcm.audio.mel import LN_TO_DB
from ddcm.backbone import Backbone
from ddcm.quantize import Quantizer
from ddcm.quantize.base import to_cells
from ddcm.quantize.vector import SingleCodebook


def mel_difference_db(
    backbone: Backbone, before: torch.Tensor, after: torch.Tensor
) -> tuple[float, list[torch.Tensor]]:
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


def show_codebook(board: Any, quantizer: Quantizer, z: torch.Tensor, step: int) -> None:
    """The (first level's) codebook among the cells of z (B, D, L, F) as that codebook meets them."""
    book = next((part for part in quantizer.modules() if isinstance(part, SingleCodebook)), None)
    if book is None:  # a quantizer of somebody's own
        return
    met: list[torch.Tensor] = []
    hook = book.register_forward_pre_hook(lambda _, given: met.append(given[0]))
    quantizer(z)
    hook.remove()
    cells = to_cells(met[0], book.embedding_dim)[:4096]
    board.add_figure("codebook", codebook_picture(book.codebook.detach().float(), book.usage, cells), step)


def _image_ready(figure: Any) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    return figure


def codebook_picture(atoms: torch.Tensor, usage: torch.Tensor, cells: torch.Tensor) -> Any:
    """A matplotlib figure: how evenly atoms are used, and where they lie among the cells.

    Args:
        atoms: (K, D).
        usage: (K,), shares that add up to 1.
        cells: (N, D), a sample of what is quantised.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    even = usage * len(usage)
    left.semilogy(even.sort(descending=True).values.clamp(min=1e-3).cpu())
    left.axhline(1.0, color="grey", linewidth=0.8, label="uniform usage")
    left.set(xlabel="atoms, by usage", ylabel="usage x K", title="usage")
    left.legend(loc="lower left")
    # The two directions in which the cells vary most.
    centre = cells.mean(dim=0)
    _, axes = torch.linalg.eigh(torch.cov((cells - centre).T.double()))
    plane = axes[:, -2:].flip(1).to(cells)
    background, points = ((rows - centre) @ plane for rows in (cells, atoms))
    right.scatter(*background.T.cpu(), s=3, color="0.7", label="cells", rasterized=True)
    dots = right.scatter(*points.T.cpu(), s=8, c=even.clamp(min=1e-2).log10().cpu(), cmap="viridis", label="atoms")
    figure.colorbar(dots, ax=right, label="log10(usage x K)")
    right.set(xlabel="first principal axis", ylabel="second", title=f"{len(atoms)} atoms")
    right.legend(loc="upper left")
    return figure
