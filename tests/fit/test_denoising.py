"""The diffusion term: where it looks, that it can be repeated and compared, and that ranks are one."""

import pytest
import torch

pytest.importorskip("lightning")

from ddcm.fit import denoising, metrics
from ddcm.fit.denoising import count_clear_timesteps, denoising_error, diffusion_loss, fixed_errors
from ddcm.fit.metrics import DenoisingError
from ddcm.quantize import Quantized


@pytest.fixture(scope="module")
def z():
    return torch.randn(4, 8, 4, 16, generator=torch.Generator().manual_seed(0))


def as_quantized(z: torch.Tensor) -> Quantized:
    return Quantized(z=z, codes=torch.zeros(0, dtype=torch.long), z_q_codebook=z)


def test_timesteps_end_where_noise_outweighs_the_signal(tiny):
    last = count_clear_timesteps(tiny.alphas_cumprod)
    assert tiny.alphas_cumprod[last - 1] >= 0.5 > tiny.alphas_cumprod[last] and 200 < last < 300
    assert count_clear_timesteps(torch.tensor([0.4, 0.1])) == 1


def test_it_is_the_error_of_the_noise(tiny, z):
    t, noise = torch.tensor([3, 50, 100, 240]), torch.randn(z.shape)
    errors = denoising_error(tiny, z, t, noise)
    for i in range(len(z)):
        abar = float(tiny.alphas_cumprod[t[i]])
        x = abar**0.5 * z[i : i + 1] + (1 - abar) ** 0.5 * noise[i : i + 1]
        wanted = (tiny.eps(x, int(t[i]), tiny.null_condition()) - noise[i : i + 1]).square().mean()
        assert float(errors[i]) == pytest.approx(float(wanted), rel=1e-4)


def test_fixed_errors_depend_on_the_number_alone(tiny, z):
    together, alone = fixed_errors(tiny, z, [5, 6, 7, 8]), fixed_errors(tiny, z[2:3], [7])
    assert float(together[2]) == pytest.approx(float(alone), rel=1e-4)
    assert float(fixed_errors(tiny, z[2:3], [8])) != pytest.approx(float(alone), rel=1e-4)


def test_two_ranks_are_one_with_twice_the_windows(tiny, z, monkeypatch):
    whole = diffusion_loss(tiny, z, seed=3)
    together = DenoisingError(tiny, windows=2)
    for number in range(2):
        together.update(as_quantized(z[2 * number : 2 * number + 2]), number)
    for module in (denoising, metrics):
        monkeypatch.setattr(module, "world_size", lambda: 2)
    parts, sums = [], 0
    for rank in range(2):
        for module in (denoising, metrics):
            monkeypatch.setattr(module, "rank", lambda rank=rank: rank)
        parts.append(float(diffusion_loss(tiny, z[rank::2], seed=3)))
        share = DenoisingError(tiny, windows=1)
        for number in range(2):
            share.update(as_quantized(z[rank::2][number : number + 1]), number)
        sums = sums + share.sums
    assert sum(parts) / 2 == pytest.approx(float(whole), rel=1e-4)
    assert torch.allclose(sums, together.sums, rtol=1e-4)


def test_gradients_reach_the_latent(tiny, z):
    asked = z.clone().requires_grad_()
    diffusion_loss(tiny, asked, seed=0).backward()
    assert asked.grad.abs().sum() > 0
    assert torch.equal(diffusion_loss(tiny, z, 1), diffusion_loss(tiny, z, 1))
