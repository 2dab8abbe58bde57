"""Steps and the loop, on a denoiser whose answer is known in closed form."""

import pytest
import torch

from ddcm.diffusion.loop import denoise_loop
from ddcm.diffusion.noise import latent_noise
from ddcm.diffusion.solvers import ddim_step, dpmpp_step
from ddcm.diffusion.timesteps import add_noise, from_strength, quadratic

BETAS = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64).square()
ABAR = torch.cumprod(1 - BETAS, dim=0)
MEAN, STD = 1.5, 0.6


def gaussian(x: torch.Tensor, t: int) -> torch.Tensor:
    """E[x0 | x_t] for x0 ~ N(MEAN, STD^2)."""
    abar = float(ABAR[t])
    gain = abar**0.5 * STD**2 / (abar * STD**2 + 1 - abar)
    return MEAN + gain * (x - abar**0.5 * MEAN)


def even(count: int) -> tuple[int, ...]:
    return tuple(round(999 * (1 - i / (count - 1))) for i in range(count))


def start(count: int = 20000) -> torch.Tensor:
    return torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


UNEVEN = (999, 990, 950, 800, 700, 690, 500, 420, 300, 210, 120, 80, 40, 20, 10, 5, 2, 0)


@pytest.mark.parametrize("timesteps", [even(200), UNEVEN])
@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_deterministic_solvers_reach_the_gaussian(timesteps, solver):
    out = denoise_loop(gaussian, start(), timesteps, ABAR, solver=solver)
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(out.std()) == pytest.approx(STD, rel=0.15 if timesteps is UNEVEN else 0.05)


def test_noise_at_every_step_reaches_it_too():
    generator = torch.Generator().manual_seed(1)

    def pick_noise(i, x0):
        return torch.randn(x0.shape, generator=generator, dtype=x0.dtype)

    out = denoise_loop(gaussian, start(), even(200), ABAR, pick_noise=pick_noise)
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(out.std()) == pytest.approx(STD, rel=0.05)


def test_the_exact_solution_of_the_ode():
    """For a Gaussian the probability-flow ODE is linear: a sample keeps its number of standard deviations."""
    x = start(1000)
    abar = float(ABAR[999])
    z = (x - abar**0.5 * MEAN) / (abar * STD**2 + 1 - abar) ** 0.5
    low = float(ABAR[0])
    exact = MEAN + z * STD  # at abar = 1; the list ends at abar[0] = 0.9985, whose estimate is E[x0 | x]
    gain = low**0.5 * STD**2 / (low * STD**2 + 1 - low)
    exact = MEAN + gain * (low * STD**2 + 1 - low) ** 0.5 * (exact - MEAN) / STD

    def error(solver, timesteps):
        return float((denoise_loop(gaussian, x, timesteps, ABAR, solver=solver) - exact).abs().mean())

    assert error("ddim", quadratic(80)) < error("ddim", quadratic(20)) / 3  # first order
    assert error("dpm++", quadratic(40)) < error("dpm++", quadratic(10)) / 10  # second order
    assert error("dpm++", quadratic(20)) < error("ddim", quadratic(20)) / 4
    assert error("dpm++", quadratic(20)) < error("dpm++", even(20)) / 8
    assert error("ddim", quadratic(20)) < error("ddim", even(20)) / 1.8


def test_ddim_at_eta_one_is_the_ddpm_posterior():
    x, x0, noise = (torch.randn(64, dtype=torch.float64) for _ in range(3))
    abar, abar_next = float(ABAR[501]), float(ABAR[500])
    alpha = abar / abar_next
    mean = abar_next**0.5 * (1 - alpha) / (1 - abar) * x0 + alpha**0.5 * (1 - abar_next) / (1 - abar) * x
    variance = (1 - abar_next) / (1 - abar) * (1 - alpha)
    assert torch.allclose(ddim_step(x, x0, abar, abar_next, 1.0, noise), mean + variance**0.5 * noise)


def test_first_dpm_step_is_ddim():
    x, x0 = torch.randn(2, 64, dtype=torch.float64)
    assert torch.allclose(dpmpp_step(x, x0, 0.3, 0.5)[0], ddim_step(x, x0, 0.3, 0.5))


def test_equal_to_diffusers_ddim():
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(50)
    x = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    theirs, estimates = x, []
    for t in scheduler.timesteps:
        eps = (theirs - float(ABAR[t]) ** 0.5 * gaussian(theirs, int(t))) / (1 - float(ABAR[t])) ** 0.5
        result = scheduler.step(eps, t, theirs)
        theirs = result.prev_sample
        estimates.append(result.pred_original_sample)
    ours = denoise_loop(gaussian, x, scheduler.timesteps.tolist(), ABAR)
    assert torch.allclose(ours, estimates[-1], atol=1e-5)


def test_project_acts_on_every_estimate():
    estimates = []

    def project(i, x0):
        estimates.append(i)
        return x0.clamp(-0.1, 0.1)

    out = denoise_loop(gaussian, start(8), even(5), ABAR, project=project)
    assert estimates == [0, 1, 2, 3, 4] and out.abs().max() <= 0.1


def test_timestep_lists():
    assert from_strength(0.0, 50) == ()
    assert from_strength(1.0, 4) == quadratic(4) == (999, 444, 111, 0)
    for strength in (0.001, 0.1, 0.33, 0.9):
        steps = from_strength(strength, 50)
        assert steps[0] == round(strength * 999) and len(steps) <= max(1, round(50 * strength))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        from_strength(1.1, 50)
    with pytest.raises(ValueError, match="strictly"):
        denoise_loop(gaussian, start(1), (5, 5), ABAR)
    with pytest.raises(ValueError, match="deterministic"):
        denoise_loop(gaussian, start(1), (5, 1), ABAR, solver="dpm++", pick_noise=lambda i, x0: x0)


def test_no_steps_is_no_change():
    x = start(8)
    assert torch.equal(denoise_loop(gaussian, x, (), ABAR), x)


def test_noise_depends_on_seed_and_place_alone():
    long, short = latent_noise(7, 100, 8, 16), latent_noise(7, 37, 8, 16)
    assert long.shape == (8, 100, 16) and torch.equal(long[:, :37], short)
    assert not torch.equal(latent_noise(8, 37, 8, 16), short)
    assert abs(float(long.mean())) < 0.03 and float(long.std()) == pytest.approx(1, abs=0.03)
    x = add_noise(torch.zeros(4), torch.ones(4), 0.75)
    assert torch.allclose(x, torch.full((4,), 0.5))
