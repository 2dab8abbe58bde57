"""One learned codebook: how it starts, learns and keeps its atoms alive."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from ddcm.quantize.base import Quantized, Quantizer, from_cells, to_cells
from ddcm.quantize.kmeans import Distance, find_nearest, kmeans, sums_and_counts
from ddcm.runtime.distributed import broadcast, count_rows, pick_rows, sum_over_ranks


class SingleCodebook(Quantizer):
    """What ``hard`` and ``soft`` share: K atoms of D numbers. They differ in ``approximate``, what a cell becomes.

    Args:
        codebook_size: K, number of atoms.
        embedding_dim: D, numbers in an atom; 8 for AudioLDM2's latents.
        commitment: weight of the commitment term, mean |z - atom|^2 with the atom held fixed. With a frozen
            encoder it has nothing to move, unless something before the codebook learns (``projected``); it is
            still computed, so that runs can be compared.
        learn: ``gradient`` moves atoms by the codebook term, mean |atom - z|^2 with z held fixed; ``ema``
            keeps exponentially decayed sums and counts of each atom's cells and derives the centroids from
            them (VQ-VAE, arXiv 1711.00937, appendix A.1). Statistics are summed over ranks.
        decay: of the statistics, per step; also for the usage that revival looks at.
        threshold_usage_ratio: an atom whose decayed usage falls under this share of uniform usage (1 / K) is set on
            a random cell of the batch. Relative, so that neither batch size nor K matters. 0 turns it off.
        distance: ``euclidean``, or ``cosine``: the atom of nearest direction. Atoms keep a length either way.
    """

    gradient: str = "straight-through"
    """How gradients pass to z: a key of ``GRADIENTS``."""
    usage: torch.Tensor
    steps: torch.Tensor
    sums: torch.Tensor
    counts: torch.Tensor

    def __init__(
        self,
        codebook_size: int = 1024,
        embedding_dim: int = 8,
        commitment: float = 0.25,
        learn: Literal["gradient", "ema"] = "gradient",
        decay: float = 0.99,
        threshold_usage_ratio: float = 0.05,
        distance: Distance = "euclidean",
    ):
        super().__init__()
        for name, value, known in (
            ("learn", learn, ("gradient", "ema")),
            ("distance", distance, ("euclidean", "cosine")),
        ):
            if value not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, not {value!r}")
        self.codebook_size, self.embedding_dim = codebook_size, embedding_dim
        self.commitment, self.learn, self.decay, self.threshold_usage_ratio = (
            commitment,
            learn,
            decay,
            threshold_usage_ratio,
        )
        self.distance: Distance = distance
        start = torch.randn(codebook_size, embedding_dim, generator=torch.Generator().manual_seed(0))
        self.codebook = nn.Parameter(start, requires_grad=learn == "gradient")
        self.register_buffer("usage", torch.full((codebook_size,), 1 / codebook_size))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))  # seeds revival: resumes exactly
        if learn == "ema":
            self.register_buffer("sums", start.clone())
            self.register_buffer("counts", torch.ones(codebook_size))

    def approximate(self, cells: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cells (N, D) and their nearest atoms -> what they become, twice: gradients to the cells, and to the atoms."""
        raise NotImplementedError

    @property
    def metrics(self) -> dict[str, torch.Tensor]:
        """For ``Quantized.metrics``."""
        return {}

    @property
    def config(self) -> dict:
        names = ("codebook_size", "embedding_dim", "commitment", "learn", "decay", "threshold_usage_ratio", "distance")
        return {name: getattr(self, name) for name in names}

    @torch.no_grad()
    def initialise(self, cells: torch.Tensor, seed: int = 0) -> None:
        """k-means on cells (N, D), the same on every rank; every rank ends with rank 0's centroids."""
        centroids = kmeans(cells, self.codebook_size, seed=seed, distance=self.distance)
        self._set(slice(None), broadcast(centroids.to(self.codebook)))
        self.usage.fill_(1 / self.codebook_size)

    def atom_usage(self) -> torch.Tensor:
        return self.usage[None]

    def encode(self, z: torch.Tensor) -> torch.Tensor:
        codes = self._nearest(to_cells(z, self.embedding_dim))
        return codes.reshape(z.shape[0], *z.shape[2:])

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return F.embedding(codes, self.codebook).movedim(-1, 1)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, z: torch.Tensor) -> Quantized:
        cells = to_cells(z, self.embedding_dim)
        codes = self._nearest(cells)
        passed, learned = self.approximate(cells, codes)
        losses = {"commitment": self.commitment * F.mse_loss(cells, learned.detach())}
        if self.learn == "gradient":
            losses["codebook"] = F.mse_loss(learned, cells.detach())
        sums, counts = sums_and_counts(cells.detach(), codes, self.codebook_size)
        if self.training:  # in eval mode ranks work apart, on as many batches as each happens to have
            sum_over_ranks(sums, counts)
        frequency = counts / counts.sum().clamp(min=1)
        result = Quantized(
            z=from_cells(passed, z),
            codes=codes.reshape(z.shape[0], *z.shape[2:]),
            z_q_codebook=from_cells(learned, z),
            losses=losses,
            perplexity=torch.exp(torch.special.entr(frequency).sum()),
            usage=(counts > 0).float().mean(),
            metrics=self.metrics,
        )
        if self.training:
            self._learn(cells.detach(), sums, counts, frequency, block=len(cells) // len(z))
        return result

    def _nearest(self, cells: torch.Tensor) -> torch.Tensor:
        return find_nearest(cells.detach(), self.codebook.detach().float(), self.distance)

    @torch.no_grad()
    def _learn(self, cells, sums, counts, frequency, block: int) -> None:
        self.steps += 1
        self.usage.lerp_(frequency, 1 - self.decay)
        if self.learn == "ema":
            self.sums.lerp_(sums, 1 - self.decay)
            self.counts.lerp_(counts, 1 - self.decay)
            # Decayed counts near zero would blow rounding up: such atoms stay where they are.
            seen = self.counts[:, None] > 1e-3
            self.codebook.copy_(torch.where(seen, self.sums / self.counts.clamp(min=1e-3)[:, None], self.codebook))
        if self.threshold_usage_ratio > 0:
            self._revive(cells, block)

    def _revive(self, cells: torch.Tensor, block: int) -> None:
        """Dead atoms are set on random cells of the whole batch; ``block`` cells make a sample."""
        dead = (self.usage < self.threshold_usage_ratio / self.codebook_size).nonzero()[:, 0]
        if len(dead) == 0:  # usage is summed over ranks, so all ranks come to the same answer
            return
        generator = torch.Generator().manual_seed(int(self.steps))
        chosen = torch.randint(count_rows(cells), (len(dead),), generator=generator)
        self._set(dead, pick_rows(cells, chosen, block).to(self.codebook))
        self.usage[dead] = 1 / self.codebook_size

    @torch.no_grad()
    def _set(self, index, atoms: torch.Tensor) -> None:
        """Place atoms, and their statistics as if each had been met as often as the average one."""
        self.codebook[index] = atoms
        if self.learn == "ema":
            self.counts[index] = self.counts.mean().clamp(min=1.0)
            self.sums[index] = atoms * self.counts[index, None]


def straight_through(cells: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
    """Cells and their atoms (N, D) -> the atoms' values, with the gradient of the identity (arXiv 1308.3432)."""
    return cells + (atoms - cells).detach()


def rotate(cells: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
    """The same values by the rotation and scaling that take each cell onto its atom (arXiv 2410.06424, equation 4).

    Both are held fixed, so the gradient is turned and scaled with the cell: its angle to the atom is the one that
    the loss saw. Cells that point away from their atom (or are zero) have no one shortest rotation; these are
    passed straight through.
    """
    fixed, atoms = cells.detach(), atoms.detach()
    lengths = fixed.norm(dim=1, keepdim=True), atoms.norm(dim=1, keepdim=True)
    e, q = F.normalize(fixed, dim=1), F.normalize(atoms, dim=1)
    r = F.normalize(e + q, dim=1)
    turned = cells - 2 * (cells * r).sum(1, keepdim=True) * r + 2 * (cells * e).sum(1, keepdim=True) * q
    defined = ((e + q).norm(dim=1, keepdim=True) > 1e-3) & (lengths[0] > 0)
    return torch.where(defined, turned * (lengths[1] / lengths[0].clamp(min=1e-12)), straight_through(cells, atoms))


GRADIENTS = {"straight-through": straight_through, "rotation": rotate}
