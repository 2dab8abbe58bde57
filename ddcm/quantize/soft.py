"""Soft quantisation: every cell becomes a mixture of atoms, softmax(-distance / temperature)."""

from __future__ import annotations

import torch

from ddcm.quantize.kmeans import Distance
from ddcm.quantize.mixture import mixture
from ddcm.quantize.vector import SingleCodebook, straight_through


class SoftQuantizer(SingleCodebook):
    """Soft-to-hard vector quantisation of z (B, D, *spatial) with K atoms (arXiv 1704.00648).

    Learned by gradient: means of softly assigned cells (EMA) would all drift to the mean of everything at any
    temperature worth the name. ``codes`` are the nearest atoms, and so are usage and perplexity. Gradients pass to z
    straight through: those of the softmax vanish as it hardens.

    Args:
        temperature: in units of distance; z has variance near 1, so cells of eight numbers lie some 4 apart. At 0
            this is ``HardQuantizer``.
        final_temperature: where it ends, falling geometrically over ``anneal_steps`` training steps; None stays.
            Ending low makes codes that stand for their cells as well as a hard quantizer's do.

    The others are those of ``SingleCodebook``.
    """

    def __init__(
        self,
        codebook_size: int = 1024,
        embedding_dim: int = 8,
        temperature: float = 1.0,
        final_temperature: float | None = None,
        anneal_steps: int = 1000,
        commitment: float = 0.25,
        decay: float = 0.99,
        threshold_usage_ratio: float = 0.05,
        distance: Distance = "euclidean",
    ):
        super().__init__(codebook_size, embedding_dim, commitment, "gradient", decay, threshold_usage_ratio, distance)
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
        mine = ("temperature", "final_temperature", "anneal_steps")
        shared = {name: value for name, value in super().config.items() if name != "learn"}
        return shared | {name: getattr(self, name) for name in mine}

    @property
    def temperature_now(self) -> torch.Tensor | float:
        """Of this step; after the schedule, and in an exported codebook, its end."""
        if self.final_temperature is None:
            return self.temperature
        done = (self.steps / self.anneal_steps).clamp(max=1)
        return self.temperature * (self.final_temperature / self.temperature) ** done

    @property
    def metrics(self) -> dict[str, torch.Tensor]:
        return {"temperature": torch.as_tensor(self.temperature_now)}

    def approximate(self, cells: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # A copy: revival moves atoms in place before gradients are taken.
        atoms = self.codebook.float().clone()
        learned = mixture(cells.detach(), atoms, self.temperature_now, self.distance)
        return (straight_through(cells, learned) if self.training else learned), learned
