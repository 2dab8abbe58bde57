"""Errors of a decoded mel against the recording's: (1, 1, T, M) each, log-mels -> a scalar that autograd can follow.

The encoder goes down their gradients. ``perceptual_error`` is the one that noise is chosen for;
benchmarks/noise_choice.py compares it with others.
"""

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

MeasureError = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # decoded mel, the recording's -> error
LOUD = 2  # by how much the loudest cell of a mel counts more than silence
STRUCTURE = 0.5  # weight of the error of structure, which is 1 for a cell that has nothing of the recording's
FRAMES, BANDS = 2, 3  # of the mel to a cell of the structure: 20 ms and a third of an octave, more at low frequencies
BELOW_FRAME, BELOW_PEAK = 45.0, 60.0  # dB under the loudest cell of a frame and of the window that count as silence
SMALL = 1.0  # dB^2, under which a variance is taken for none
MIDDLE = 0.787  # weight of the middle of three cells
TINY = 1e-3  # dB^2, which keeps the gradient of a root finite
LN_TO_DB = 10 / math.log(10)


def half_square(decoded: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
    return 0.5 * (decoded - mel).square().sum()


def loud_three_halves(decoded: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
    """Magnitudes to the power of 1.5, each cell weighted by 1 + 2 sqrt(a), a being its amplitude over the largest
    one's. A small number keeps the gradient finite where the mels are equal."""
    weights = 1 + LOUD * (0.5 * (mel - mel.amax(dim=(1, 2, 3), keepdim=True))).exp()
    return (weights * ((decoded - mel).square() + 1e-6).pow(0.75)).sum()


def structure_error(decoded: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
    """Cells of the mel times the mean of 1 - s, s being the similarity of structure of two maps of levels: their means
    and their correlation in a small neighbourhood, as in SSIM (Wang et al., "Image quality assessment", 2004) and in
    NSIM, which does so for speech (Hines and Harte, "Speech intelligibility prediction using a neurogram similarity
    index measure", 2012)."""
    levels = _to_levels(mel), _to_levels(decoded)
    floor = torch.maximum(*levels).amax(dim=3, keepdim=True) - BELOW_FRAME
    floor = torch.maximum(floor, levels[0].amax(dim=(1, 2, 3), keepdim=True) - BELOW_PEAK).detach()
    a, b = (torch.maximum(x, floor) - floor.amin(dim=(1, 2, 3), keepdim=True) for x in levels)
    mean_a, mean_b = _smooth(a), _smooth(b)
    variance_a, variance_b = ((_smooth(x * x) - mean.square()).clamp(min=0) for x, mean in ((a, mean_a), (b, mean_b)))
    covariance = _smooth(a * b) - mean_a * mean_b
    intensity = (2 * mean_a * mean_b + SMALL) / (mean_a.square() + mean_b.square() + SMALL)
    spread = ((variance_a + TINY) * (variance_b + TINY)).sqrt() - TINY
    correlation = (covariance + SMALL) / (spread + SMALL)
    return (1 - intensity * correlation).mean() * mel.numel()


def perceptual_error(decoded: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
    return loud_three_halves(decoded, mel) + STRUCTURE * structure_error(decoded, mel)


def _to_levels(mel: torch.Tensor) -> torch.Tensor:
    """dB of the mean power around every second frame and third band."""
    size = 2 * FRAMES + 1, BANDS
    power = F.avg_pool2d((2 * mel).exp(), size, (FRAMES, BANDS), (FRAMES, BANDS // 2), count_include_pad=False)
    return LN_TO_DB * (power + 1e-12).log()


def _smooth(x: torch.Tensor) -> torch.Tensor:
    """The mean of each cell and its eight neighbours, by NSIM's weights."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    x = MIDDLE * x[..., 1:-1, :] + (1 - MIDDLE) / 2 * (x[..., :-2, :] + x[..., 2:, :])
    return MIDDLE * x[..., 1:-1] + (1 - MIDDLE) / 2 * (x[..., :-2] + x[..., 2:])
