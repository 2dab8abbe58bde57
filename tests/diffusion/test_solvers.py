"""UniPC: the reference implementation, step for step, and the order that it promises."""

import pytest
import torch

from ddcm.diffusion.loop import denoise_loop
from ddcm.diffusion.timesteps import quadratic
from tests.diffusion.test_loop import ABAR, gaussian, start


@pytest.mark.parametrize("steps", [2, 3, 5, 12, 40])
def test_equals_diffusers(steps):
    from diffusers import UniPCMultistepScheduler

    theirs = UniPCMultistepScheduler(
        num_train_timesteps=1000, beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear",
        solver_order=2, solver_type="bh2", prediction_type="sample", predict_x0=True, final_sigmas_type="zero",
    )  # fmt: skip
    theirs.set_timesteps(steps)
    timesteps = [int(t) for t in theirs.timesteps]
    abar = theirs.alphas_cumprod.double()
    estimates = {"ours": [], "theirs": []}

    def denoise(x, t):
        return torch.tanh(x) * float(abar[t]) ** 0.5 + 0.1 * x  # not linear: history and corrector matter

    x = torch.randn(2, 8, 4, 16, dtype=torch.float64)
    ours = denoise_loop(denoise, x, timesteps, abar, solver="unipc", on_step=lambda i, x0: estimates["ours"].append(x0))
    for t in theirs.timesteps:
        x0 = denoise(x, int(t))
        estimates["theirs"].append(x0)
        x = theirs.step(x0, t, x).prev_sample
    for a, b in zip(estimates["ours"], estimates["theirs"], strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    assert torch.allclose(ours, x, rtol=1e-4, atol=1e-5)


def test_second_order_on_a_gaussian():
    def error(solver, count):
        x = start(1)
        exact = denoise_loop(gaussian, x, quadratic(1000), ABAR, solver="dpm++")
        return float((denoise_loop(gaussian, x, quadratic(count), ABAR, solver=solver) - exact).abs().max())

    assert error("unipc", 40) < error("unipc", 10) / 8
    assert error("unipc", 20) < error("ddim", 20) / 4


def test_refuses_noise():
    with pytest.raises(ValueError, match="deterministic"):
        denoise_loop(gaussian, start(1), (5, 1), ABAR, solver="unipc", pick_noise=lambda i, x0: x0)
