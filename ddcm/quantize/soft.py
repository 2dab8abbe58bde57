"""Soft quantisation: each cell becomes a mixture of atoms, with weights softmax(-distance / temperature)."""

import torch
from torch.nn import functional as F

from ddcm.quantize.base import from_cells, to_cells
from ddcm.quantize.hard import straight_through
from ddcm.quantize.kmeans import Distance, comparable, find_nearest, half_squares
from ddcm.quantize.vector import SingleCodebook

CHUNK = 1 << 10  # cells at a time: a few tensors of 2**10 x 1024 float32 numbers live at once
LEAST = 1e-30  # a lower temperature counts as 0: float32 could not hold its reciprocal


class SoftQuantizer(SingleCodebook):
    """Soft-to-hard vector quantisation of z (B, D, *spatial) with K atoms (arXiv 1704.00648).

    It learns by gradient: exponential means of softly assigned cells would all drift to the mean of everything.
    Codes, usage and perplexity are those of the nearest atoms. Gradients pass to z straight through: those of the
    softmax vanish as it hardens.

    Args:
        codebook_size: K, number of atoms.
        embedding_dim: D, numbers in an atom.
        temperature: in units of distance. z has variance near 1, so two cells of eight numbers lie about 4 apart. At 0
            this is ``HardQuantizer``.
        final_temperature: the temperature falls to it geometrically; None: it stays. With a low one, codes represent
            their cells as well as a hard quantizer's do.
        anneal_steps: training steps until ``final_temperature``.
        options: those of ``SingleCodebook``, except ``learn``.
    """

    def __init__(
        self, codebook_size: int = 1024, embedding_dim: int = 8, temperature: float = 1.0,
        final_temperature: float | None = None, anneal_steps: int = 1000, **options,
    ):  # fmt: skip
        super().__init__(codebook_size, embedding_dim, learn="gradient", **options)
        if temperature < 0:
            raise ValueError(f"temperature is at least 0, not {temperature}")
        if final_temperature is not None and not (0 < final_temperature <= temperature and anneal_steps > 0):
            raise ValueError(
                f"final_temperature is between 0 and temperature ({temperature}), reached in at least one of "
                f"anneal_steps; not {final_temperature} in {anneal_steps}"
            )
        self.temperature, self.final_temperature = temperature, final_temperature
        self.anneal_steps = anneal_steps

    @property
    def config(self) -> dict:
        return {name: value for name, value in super().config.items() if name != "learn"}

    @property
    def temperature_now(self) -> torch.Tensor | float:
        """The temperature of this training step; after training, the final one."""
        if self.final_temperature is None:
            return self.temperature
        progress = (self.steps.float() / self.anneal_steps).clamp(max=1)
        return self.temperature * (self.final_temperature / self.temperature) ** progress

    @property
    def metrics(self) -> dict[str, torch.Tensor]:
        return {"temperature": torch.as_tensor(self.temperature_now)}

    def approximate(self, cells: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # A copy: atoms are revived in place before gradients are taken.
        atoms = self.codebook.float().clone()
        mixed = mixture(cells.detach(), atoms, self.temperature_now, self.distance)
        return straight_through(cells, mixed) if self.training else mixed, mixed


def mixture(
    cells: torch.Tensor, codebook: torch.Tensor, temperature: torch.Tensor | float, distance: Distance = "euclidean"
) -> torch.Tensor:
    """softmax(-d / temperature) over the atoms, times the atoms, for cells (N, D) and codebook (K, D): (N, D). d is the
    distance, not its square. As the temperature falls, the mixture approaches the nearest atom; below 1e-30 it is that
    atom, with ties to the lowest index. Gradients go to cells and atoms. The weights are computed again in the backward
    pass, so memory does not grow with N x K."""
    temperature = float(temperature)  # once: where it falls, it is a number of the device
    if temperature < LEAST:
        return F.embedding(find_nearest(cells, codebook, distance), codebook)
    return _Mixture.apply(comparable(cells, distance), comparable(codebook, distance), codebook, temperature)


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
@torch.autocast("cuda", enabled=False)
def soften(z: torch.Tensor, atoms: torch.Tensor, temperature: float) -> torch.Tensor:
    """``mixture`` of z (B, D, *spatial) with the atoms (K, D) of any codebook, in the shape and dtype of z."""
    if not temperature >= 0:
        raise ValueError(f"temperature must be at least 0, not {temperature}")
    return from_cells(mixture(to_cells(z, atoms.shape[1]), atoms.detach().float(), temperature), z)


class _Mixture(torch.autograd.Function):
    """(x (N, D), y (K, D), values (K, D)) -> softmax(-|x - y| / temperature) @ values, chunk by chunk."""

    @staticmethod
    def forward(ctx, x, y, values, temperature):
        out = torch.cat([_weights(part, y, temperature)[0] @ values for part in x.split(CHUNK)] or [x[:0]])
        ctx.save_for_backward(x, y, values)
        ctx.temperature = temperature
        return out

    @staticmethod
    def backward(ctx, grad):
        x, y, values = ctx.saved_tensors
        to_y, to_values, to_x = torch.zeros_like(y), torch.zeros_like(values), []
        for part, g in zip(x.split(CHUNK), grad.split(CHUNK), strict=True):
            weights, d = _weights(part, y, ctx.temperature)
            to_values.addmm_(weights.T, g)
            # dL/dd = -w (g . value - sum of w g . value) / temperature, and dd/dy = (y - x) / d.
            pull = g @ values.T
            pull.sub_((pull * weights).sum(dim=1, keepdim=True))  # exactly 0 where one atom has all the weight
            pull.mul_(weights).div_(d.clamp_(min=1e-3)).mul_(-1 / ctx.temperature)
            to_y.add_(y * pull.sum(dim=0)[:, None]).addmm_(pull.T, part, alpha=-1)
            to_x.append(torch.addmm(part * pull.sum(dim=1, keepdim=True), pull, y, alpha=-1))
        return torch.cat(to_x or [x[:0]]), to_y, to_values, None


def _weights(x: torch.Tensor, y: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(-|x - y| / temperature) and the distances |x - y|, both (n, K)."""
    scores = half_squares(x, y)
    lowest = scores.amin(dim=1, keepdim=True)
    least = (2 * lowest + x.square().sum(dim=1, keepdim=True)).clamp_(min=torch.finfo(x.dtype).tiny).sqrt_()
    # d - d_min = (d^2 - d_min^2) / (d + d_min): exact however close, where a difference of roots would round to 0.
    excess = scores.sub_(lowest).mul_(2)
    d = (excess + least.square()).sqrt_()
    return torch.softmax(excess.div_(d + least).mul_(-1 / temperature), dim=1), d
