"""Spectrograms, sound and the codebook in TensorBoard."""

from typing import Any

import torch

from ddcm.audio.mel import mel_error_db
from ddcm.backbone import Backbone
from ddcm.quantize import Quantizer
from ddcm.quantize.base import to_cells
from ddcm.quantize.vector import SingleCodebook

SHOWN_CELLS = 4096


def mel_difference_db(
    backbone: Backbone, before: torch.Tensor, after: torch.Tensor
) -> tuple[float, list[torch.Tensor]]:
    """Decode z (B, C, L, F) before and after quantisation; return the mean absolute difference in dB, and both mels."""
    mels = [backbone.decode(z) for z in (before, after)]
    return mel_error_db(mels[0], mels[1]), mels


def show_mels(board: Any, backbone: Backbone, mels: list[torch.Tensor], step: int) -> None:
    """Show the first window of two mels (B, 1, T, M), before and after quantisation, as pictures and as sound on a
    ``SummaryWriter``."""
    figure, panels = _new_figure((8, 5), 2, 1)
    low, high = float(mels[0][0].min()), float(mels[0][0].max())
    for axes, mel, title in zip(panels, mels, ("before", "after"), strict=True):
        axes.imshow(mel[0, 0].T.cpu(), origin="lower", aspect="auto", vmin=low, vmax=high)
        axes.set(title=f"log-mel {title} quantisation", ylabel="band")
    axes.set_xlabel("frame (10 ms)")
    board.add_figure("mel", figure, step)
    for mel, name in zip(mels, ("before", "after"), strict=True):
        board.add_audio(f"audio/{name}", backbone.vocode(mel[:1])[0], step, backbone.mel_spec.sample_rate)


def show_codebook(board: Any, quantizer: Quantizer, z: torch.Tensor, step: int) -> None:
    """Show the first level's codebook, and the cells that it quantises for z (B, D, L, F)."""
    book = next((part for part in quantizer.modules() if isinstance(part, SingleCodebook)), None)
    if book is None:  # a quantizer from outside this package
        return
    inputs: list[torch.Tensor] = []
    hook = book.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    quantizer(z)
    hook.remove()
    cells = to_cells(inputs[0], book.embedding_dim)[:SHOWN_CELLS]
    board.add_figure("codebook", plot_codebook(book.codebook.detach().float(), book.usage, cells), step)


def plot_codebook(atoms: torch.Tensor, usage: torch.Tensor, cells: torch.Tensor) -> Any:
    """A figure: how evenly atoms (K, D) are used, by shares (K,) that add up to 1; and atoms and cells (N, D) along the
    cells' two principal axes."""
    figure, (left, right) = _new_figure((10, 4.5), 1, 2)
    relative = usage * len(usage)
    left.semilogy(relative.sort(descending=True).values.clamp(min=1e-3).cpu())
    left.axhline(1.0, color="grey", linewidth=0.8, label="uniform usage")
    left.set(xlabel="atoms, by usage", ylabel="usage x K", title="usage")
    left.legend(loc="lower left")
    centre = cells.mean(dim=0)
    _, axes = torch.linalg.eigh(torch.cov((cells - centre).T.cpu().double()))
    plane = axes[:, -2:].flip(1).to(cells)
    background, points = ((rows - centre) @ plane for rows in (cells, atoms))
    right.scatter(*background.T.cpu(), s=3, color="0.7", label="cells", rasterized=True)
    dots = right.scatter(*points.T.cpu(), s=8, c=relative.clamp(min=1e-2).log10().cpu(), cmap="viridis", label="atoms")
    figure.colorbar(dots, ax=right, label="log10(usage x K)")
    right.set(xlabel="first principal axis", ylabel="second", title=f"{len(atoms)} atoms")
    right.legend(loc="upper left")
    return figure


def _new_figure(inches: tuple[float, float], rows: int, columns: int) -> tuple[Any, Any]:
    """A figure and its panels. Not by pyplot, which keeps figures and needs a window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, sharex=columns == 1)
