"""Soft quantisation: each cell becomes a mixture of atoms, with weights softmax(-distance / temperature)."""

from __future__ import annotations

import torch

from ddcm.quantize.hard import straight_through
from ddcm.quantize.mixture import mixture
from ddcm.quantize.vector import SingleCodebook


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
        progress = (self.steps / self.anneal_steps).clamp(max=1)
        return self.temperature * (self.final_temperature / self.temperature) ** progress

    @property
    def metrics(self) -> dict[str, torch.Tensor]:
        return {"temperature": torch.as_tensor(self.temperature_now)}

    def approximate(self, cells: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # A copy: atoms are revived in place before gradients are taken.
        atoms = self.codebook.float().clone()
        mixed = mixture(cells.detach(), atoms, self.temperature_now, self.distance)
        return straight_through(cells, mixed) if self.training else mixed, mixed
