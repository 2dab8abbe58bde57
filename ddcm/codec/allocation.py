"""More atoms for the windows that need them, in a file of the same size.

A window that the denoiser guesses well from noise needs few bits: an even tone, a pause. So one estimate at a middle
timestep says how hard a window is. Atoms are shared out in proportion to its squared error to the power of 3/4: of the
powers and timesteps that were tried on training clips of all kinds, the one nearest to the best allocation, which
evens out what one more bit gains. It takes a UNet call a window, and a byte a window in the file.
"""

from collections.abc import Callable, Sequence

import torch

from ddcm.codec.header import EVEN, Header
from ddcm.codec.model import LatentDiffusion
from ddcm.codec.noise_codebooks import start_noise
from ddcm.codec.targets import Targets
from ddcm.diffusion.timesteps import add_noise
from ddcm.runtime.progress import Progress

TIMESTEP, POWER = 400, 0.75
LEAST, MOST = EVEN // 4, 3 * EVEN


def choose_shares(
    header: Header, model: LatentDiffusion, read_targets: Callable[[Sequence[int]], Targets],
    batches: Sequence[Sequence[int]], progress: Progress,
) -> tuple[int, ...]:  # fmt: skip
    """``Header.shares`` for the windows of a recording, read in ``batches``; empty where all are alike."""
    denoise, errors = model.denoiser(header.prompt, "", header.guidance / 256, 1), []
    alpha = float(model.alphas_cumprod[TIMESTEP])
    for windows in batches:
        targets = read_targets(windows).to(model.device)
        noise = [
            start_noise(header.seed, window, header.latent_size).reshape(header.latent_shape) for window in windows
        ]
        x0 = denoise(add_noise(targets.z, torch.stack(noise).to(targets.z), alpha), TIMESTEP).float()
        errors.append(((x0 - targets.z) * targets.weights).square().mean(dim=(1, 2, 3)).cpu())
        progress.step()
    return share_out(torch.cat(errors))


def share_out(errors: torch.Tensor) -> tuple[int, ...]:
    """Squared errors (W,) -> shares in 1/64 whose mean is near 64; empty where all are 64."""
    needs = errors.double().clamp(min=1e-12) ** POWER
    shares = (EVEN * needs / needs.mean()).round().clamp(LEAST, MOST).int().tolist()
    return () if set(shares) == {EVEN} else tuple(shares)
