"""A codebook at a glance."""

from __future__ import annotations

from typing import Any

import torch


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
