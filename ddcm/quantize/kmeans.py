"""Nearest atoms and k-means, in memory that does not grow with the number of cells."""

from typing import Literal

import torch
from torch.nn import functional as F

CHUNK = 1 << 15  # cells at a time: 2**15 x 1024 float32 distances are 128 MiB
Distance = Literal["euclidean", "cosine"]


def comparable(rows: torch.Tensor, distance: Distance) -> torch.Tensor:
    """Rows (N, D) whose Euclidean distances have the order of ``distance``: for cosine, on the unit sphere."""
    return F.normalize(rows, dim=1) if distance == "cosine" else rows


def half_squares(cells: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """(|x - e|^2 - |x|^2) / 2 = |e|^2 / 2 - <x, e> for cells x (N, D) and atoms e (K, D): (N, K). The order of atoms is
    that of their distances, since |x|^2 is the same for all. No N x K x D tensor is made."""
    return torch.addmm(codebook.square().sum(dim=1) / 2, cells, codebook.T, alpha=-1)


def find_nearest(cells: torch.Tensor, codebook: torch.Tensor, distance: Distance = "euclidean") -> torch.Tensor:
    """Index of the nearest atom of codebook (K, D) for each of cells (N, D): (N,) int64; ties to the lowest index."""
    codebook = comparable(codebook, distance)
    # One chunk size for every input: the shape of a matrix product decides how it is rounded.
    parts = [half_squares(comparable(part, distance), codebook).argmin(dim=1) for part in cells.split(CHUNK)]
    return torch.cat(parts) if parts else cells.new_empty(0, dtype=torch.long)


def sums_and_counts(cells: torch.Tensor, codes: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the cells of each atom (K, D), and their number (K,)."""
    sums = cells.new_zeros(size, cells.shape[1]).index_add_(0, codes, cells)
    counts = codes.new_zeros(size).scatter_add_(0, codes, torch.ones_like(codes))  # bincount would wait for a GPU
    return sums, counts.to(cells.dtype)


def kmeans(
    cells: torch.Tensor, size: int, iterations: int = 20, seed: int = 0, distance: Distance = "euclidean"
) -> torch.Tensor:
    """Lloyd's algorithm on cells (N, D): centroids (size, D), float32. It starts from cells drawn without replacement,
    or with a little noise if there are fewer cells than atoms. An atom that loses all its cells is set to a random
    cell. With ``cosine``, cells go to the centroid of nearest direction; centroids are means, with a length."""
    generator = torch.Generator().manual_seed(seed)
    cells = cells.float()
    count = len(cells)
    if count == 0:
        raise ValueError("k-means needs at least one cell")
    order = torch.randperm(count, generator=generator)[:size]
    centroids = cells[order.to(cells.device)]
    if count < size:
        extra = torch.randint(count, (size - count,), generator=generator)
        noise = torch.randn(size - count, cells.shape[1], generator=generator) * 1e-3
        centroids = torch.cat([centroids, cells[extra.to(cells.device)] + noise.to(cells.device)])
    for _ in range(iterations):
        sums, counts = sums_and_counts(cells, find_nearest(cells, centroids, distance), size)
        centroids = sums / counts.clamp(min=1)[:, None]
        fill = torch.randint(count, (size,), generator=generator).to(cells.device, non_blocking=True)
        centroids = torch.where((counts == 0)[:, None], cells[fill], centroids)
    return centroids
