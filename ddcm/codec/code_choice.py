"""The encoder's choice of codes of a fitted codebook. Nothing of it is in the file: a decoder reads codes."""

import numpy as np
import torch

from ddcm.codec.model import LatentDiffusion
from ddcm.codec.targets import Targets
from ddcm.codec.vq import to_levels
from ddcm.quantize.base import Quantizer


def choose_codes(
    model: LatentDiffusion, targets: Targets, quantizer: Quantizer, levels: int, base: torch.Tensor | None = None,
    rate_weight: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """Codes int32 (levels, L, F) of one window. What is heard is the mel of ``base`` plus the decoded codes.

    Args:
        targets: of the window; ``mel_weight`` 0 chooses by the latent alone.
        base: a latent (1, C, L, F) that the codes are added to; None: zero.
        rate_weight: how much a bit counts against the error; 0: not at all.
    """
    rest = targets.z if base is None else targets.z - base
    return to_levels(quantizer.encode(rest))[:levels]
