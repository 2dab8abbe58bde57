"""What the encoder aims at, and the residual that the noise of a step is chosen for.

The residual has two parts of equal power, mixed by ``mel_weight``:

- the latent's: z minus the estimate x0, each number weighted by one over the root of the posterior's deviation. The
  deviation says how far a number may move before the decoder makes another mel of it: in some channels several times
  less than in others. With one over the deviation itself, numbers of little weight drift too far.
- the mel's: minus the gradient, over x0, of the error of the decoded mel. It is what a listener gets, and the way from
  the present x0 to it. It takes a pass through the decoder and back, which is three times as long as the UNet's, so it
  takes part in the last ``mel_share`` of the steps alone, where most of the gain is, and is computed in every
  ``mel_interval``-th of them: from one step to the next it turns little. Its error counts loud cells more
  than silence, and the structure of the mel beside its levels: the mel in dB loses next to nothing, and speech gains
  intelligibility (STOI) and quality (PESQ, ViSQOL).

Neither is in the file: a decoder replays the noise, however it was chosen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ddcm.codec.mel_errors import MeasureError, half_square, perceptual_error
from ddcm.codec.model import LatentDiffusion

ComputeResidual = Callable[[int, torch.Tensor], torch.Tensor]  # step, estimate x0 -> residual


@dataclass(frozen=True)
class Targets:
    """Of W windows."""

    z: torch.Tensor
    """(W, C, L, F)"""
    weights: torch.Tensor
    """(W, C, L, F): of each number in the latent's residual"""
    mels: torch.Tensor
    """(W, 1, T, M), log-mel"""
    mel_weight: float = 1.0
    """power of the mel's part over the latent's, its root"""
    mel_share: float = 1.0
    """share of the steps, from the last one back, in which the mel takes part"""
    mel_interval: int = 1
    """steps between two passes through the decoder; those between keep the last gradient"""

    def split(self) -> list["Targets"]:
        """The targets of each window."""
        parts = (x.split(1) for x in (self.z, self.weights, self.mels))
        return [replace(self, z=z, weights=weights, mels=mels) for z, weights, mels in zip(*parts, strict=True)]

    def to(self, device: torch.device) -> "Targets":
        z, weights, mels = (x.detach().float().to(device) for x in (self.z, self.weights, self.mels))
        return replace(self, z=z, weights=weights, mels=mels)


def compute_targets(
    model: LatentDiffusion, mels: Sequence[torch.Tensor], mel_weight: float = 1.0, mel_share: float = 1.0,
    mel_interval: int = 1,
) -> Targets:  # fmt: skip
    """The targets of windows of mel (1, 1, T, M)."""
    posteriors = [model.posterior(mel) for mel in mels]
    z = torch.cat([mean for mean, _ in posteriors]) * model.scaling_factor
    weights = torch.cat([deviation for _, deviation in posteriors]).clamp(min=1e-6).rsqrt()
    return Targets(z, weights, torch.cat(list(mels)), mel_weight, mel_share, mel_interval)


def make_residual(
    model: LatentDiffusion, targets: Targets, steps: int, measure: MeasureError = perceptual_error
) -> ComputeResidual:
    """The function of (step, x0 (W, C, L, F)) that gives the residual (W, C, L, F) of the windows, of unit power each
    where a mel takes part. It is called for the steps from 0 to ``steps`` - 1 in order, and keeps the mel's part."""
    first = min(step for step in range(steps + 1) if (step + 1) / steps > 1 - targets.mel_share)
    descent: torch.Tensor | None = None

    def compute(step: int, x0: torch.Tensor) -> torch.Tensor:
        nonlocal descent
        residual = (targets.z - x0) * targets.weights
        if not targets.mel_weight or step < first:
            return residual
        if descent is None or (step - first) % targets.mel_interval == 0:
            descent = _unit(mel_descent(model, x0, targets.mels, measure))
        return _unit(residual) + targets.mel_weight * descent

    return compute


def mel_descent(
    model: LatentDiffusion, x0: torch.Tensor, mels: torch.Tensor, measure: MeasureError = half_square
) -> torch.Tensor:
    """Minus the gradient of the error of the decoded mels; a window at a time, to bound the memory."""
    pairs = zip(x0.split(1), mels.split(1), strict=True)
    return torch.cat([measure_mel(model, z, mel, measure)[0] for z, mel in pairs])


def measure_mel(
    model: LatentDiffusion, z: torch.Tensor, mel: torch.Tensor, measure: MeasureError = half_square
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one window: minus the gradient over z of the error of its decoded mel, and that error, a scalar."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        error = measure(model.decode(z).float(), mel)
    return -torch.autograd.grad(error, z)[0], error.detach()


def _unit(x: torch.Tensor) -> torch.Tensor:
    """Each window with mean square 1."""
    return x / x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
