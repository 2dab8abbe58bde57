"""One codebook: how it starts, learns, and revives unused atoms."""

from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F

from ddcm.quantize.base import Quantized, Quantizer, from_cells, to_cells
from ddcm.quantize.kmeans import Distance, find_nearest, kmeans, sums_and_counts
from ddcm.runtime.distributed import broadcast, gather_rows, sum_over_ranks


class SingleCodebook(Quantizer):
    """K atoms of D numbers. ``HardQuantizer`` and ``SoftQuantizer`` differ in ``approximate``: what a cell becomes.

    Args:
        codebook_size: K, number of atoms.
        embedding_dim: D, numbers in an atom; 8 for AudioLDM2's latents.
        commitment: weight of the commitment loss, mean |z - atom|^2 with the atom held fixed. It moves something only
            if something before the codebook learns (``ProjectedQuantizer``).
        learn: ``gradient`` moves atoms by the codebook loss, mean |atom - z|^2 with z held fixed. ``ema`` sets atoms
            to exponential means of their cells (VQ-VAE, arXiv 1711.00937, appendix A.1), summed over ranks.
        decay: of the exponential means and of the atoms' usage, per step.
        threshold_usage_ratio: an atom whose decayed usage is below this share of uniform usage (1 / K) is replaced
            by a random cell of the batch. 0 turns this off.
        distance: ``euclidean``, or ``cosine``: the atom of nearest direction. Atoms have a length either way.
    """

    gradient: str = "straight-through"
    """Estimator of the gradient with respect to z."""
    usage: torch.Tensor
    steps: torch.Tensor
    sums: torch.Tensor
    counts: torch.Tensor

    def __init__(
        self, codebook_size: int = 1024, embedding_dim: int = 8, commitment: float = 0.25,
        learn: Literal["gradient", "ema"] = "gradient", decay: float = 0.99, threshold_usage_ratio: float = 0.05,
        distance: Distance = "euclidean",
    ):  # fmt: skip
        super().__init__()
        for name, value, known in (("learn", learn, ("gradient", "ema")), ("distance", distance, get_args(Distance))):
            if value not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, not {value!r}")
        self.codebook_size, self.embedding_dim, self.commitment = codebook_size, embedding_dim, commitment
        self.learn, self.decay, self.threshold_usage_ratio = learn, decay, threshold_usage_ratio
        self.distance: Distance = distance
        self.defers_update = False
        self._batches: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        start = torch.randn(codebook_size, embedding_dim, generator=torch.Generator().manual_seed(0))
        self.codebook = nn.Parameter(start, requires_grad=learn == "gradient")
        self.register_buffer("usage", torch.full((codebook_size,), 1 / codebook_size))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))  # seeds revival: resumes exactly
        if learn == "ema":
            self.register_buffer("sums", start.clone())
            self.register_buffer("counts", torch.ones(codebook_size))

    def approximate(self, cells: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cells (N, D) and their nearest atoms (N,) -> (N, D) twice: with gradients to the cells, and to the atoms."""
        raise NotImplementedError

    @property
    def metrics(self) -> dict[str, torch.Tensor]:
        """For ``Quantized.metrics``."""
        return {}

    @torch.no_grad()
    def initialise(self, cells: torch.Tensor, seed: int = 0) -> None:
        """k-means on cells (N, D), the same on every rank. Every rank gets rank 0's centroids."""
        centroids = kmeans(cells, self.codebook_size, seed=seed, distance=self.distance)
        self._set_atoms(slice(None), broadcast(centroids.to(self.codebook)))
        self.usage.fill_(1 / self.codebook_size)
        self.initialised.fill_(1)
        self._batches.clear()

    @property
    def atoms(self) -> torch.Tensor:
        return self.codebook

    @property
    def level_atoms(self) -> torch.Tensor:
        return self.codebook[None]

    def atom_usage(self) -> torch.Tensor:
        return self.usage[None]

    def encode(self, z: torch.Tensor) -> torch.Tensor:
        return self._find_nearest(to_cells(z, self.embedding_dim)).reshape(z.shape[0], *z.shape[2:])

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return F.embedding(codes, self.codebook).movedim(-1, 1)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, z: torch.Tensor) -> Quantized:
        cells = to_cells(z, self.embedding_dim)
        codes = self._find_nearest(cells)
        z_q, z_q_codebook = self.approximate(cells, codes)
        losses = {"commitment": self.commitment * F.mse_loss(cells, z_q_codebook.detach())}
        if self.learn == "gradient":
            losses["codebook"] = F.mse_loss(z_q_codebook, cells.detach())
        sums, counts = sums_and_counts(cells.detach(), codes, self.codebook_size)
        if self.training:  # in eval mode, ranks may have different numbers of batches
            sum_over_ranks(sums, counts)
        frequency = counts / counts.sum().clamp(min=1)
        result = Quantized(
            z=from_cells(z_q, z),
            codes=codes.reshape(z.shape[0], *z.shape[2:]),
            z_q_codebook=from_cells(z_q_codebook, z),
            losses=losses,
            perplexity=torch.exp(torch.special.entr(frequency).sum()),
            usage=(counts > 0).float().mean(),
            metrics=self.metrics,
        )
        if self.training:
            self._batches.append((cells.detach().reshape(len(z), -1), sums, counts))
            if not self.defers_update:
                self.update()
        return result

    def _find_nearest(self, cells: torch.Tensor) -> torch.Tensor:
        return find_nearest(cells.detach(), self.codebook.detach().float(), self.distance)

    @torch.no_grad()
    def update(self) -> None:
        """Learn from all training batches since the last update, as from one: usage, EMA, revival.

        ``forward`` does it in training, unless ``defers_update``: then whoever accumulates gradients does it each step.
        """
        if not self._batches:
            return
        samples, sums, counts = (list(parts) for parts in zip(*self._batches, strict=True))
        sums, counts = sum(sums[1:], sums[0]), sum(counts[1:], counts[0])
        self._batches.clear()
        frequency = counts / counts.sum().clamp(min=1)
        self.steps += 1
        self.usage.lerp_(frequency, 1 - self.decay)
        if self.learn == "ema":
            self.sums.lerp_(sums, 1 - self.decay)
            self.counts.lerp_(counts, 1 - self.decay)
            # Atoms with decayed counts near zero stay: a division would amplify rounding.
            counted = self.counts[:, None] > 1e-3
            self.codebook.copy_(torch.where(counted, self.sums / self.counts.clamp(min=1e-3)[:, None], self.codebook))
        if self.threshold_usage_ratio > 0:
            self._revive(torch.cat(samples))

    def _revive(self, samples: torch.Tensor) -> None:
        """Replace unused atoms by random cells of the whole batch; ``samples`` (B, cells * D) are this rank's."""
        unused = (self.usage < self.threshold_usage_ratio / self.codebook_size).nonzero()[:, 0]
        if len(unused) == 0:  # usage is summed over ranks, so all ranks agree
            return
        cells = gather_rows(samples).reshape(-1, self.embedding_dim)
        generator = torch.Generator().manual_seed(int(self.steps))
        chosen = torch.randint(len(cells), (len(unused),), generator=generator)
        self._set_atoms(unused, cells[chosen.to(cells.device, non_blocking=True)].to(self.codebook))
        self.usage[unused] = 1 / self.codebook_size

    @torch.no_grad()
    def _set_atoms(self, index, atoms: torch.Tensor) -> None:
        """Set atoms, and their statistics as if each had as many cells as the average atom."""
        self.codebook[index] = atoms
        if self.learn == "ema":
            self.counts[index] = self.counts.mean().clamp(min=1.0)
            self.sums[index] = atoms * self.counts[index, None]
