"""What the verbs return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Output:
    """What a verb returns. Tensors are on the CPU."""

    audio: torch.Tensor
    """(S,) float32, as long as the input, at the input's level."""
    sample_rate: int
    mel: torch.Tensor
    """(1, 1, T, M): what the vocoder was given."""
    latent: torch.Tensor
    """(W, C, L, F): the z that was decoded, a row for each window of 10.24 s."""
    notes: dict[str, Any] = field(default_factory=dict)
    """The settings that were used, and what was noticed on the way."""
    others: list[Output] = field(default_factory=list)
    """The other candidates where several were asked for: by falling CLAP score, without a prompt by seed."""
    trace: list[tuple[int, torch.Tensor]] = field(default_factory=list)
    """(timestep, log-mel (1, 1, T, M) of the first window's estimate) on the way, where a trace was asked for."""
