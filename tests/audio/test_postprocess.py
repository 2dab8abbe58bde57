"""Limits of the latent and the finishes of the audio: each does what its name says, and nothing else."""

import pytest
import torch

from ddcm.audio.postprocess import STEPS, postprocess
from ddcm.evaluation.signal_metrics import hf_ratio_db
from ddcm.pipeline.encode import LIMITS, limit_std
from ddcm.recipes import CHOICES

RATE = 16000


def tone(hz, seconds=1.0, gain=0.3):
    return gain * torch.sin(torch.arange(int(RATE * seconds)) * 2 * torch.pi * hz / RATE)


def rms(audio):
    return float(audio.square().mean().sqrt())


def test_every_name_of_a_recipe_is_there():
    assert set(CHOICES["after"]) == {"none", *STEPS} and set(CHOICES["limiter"]) == {"none", *LIMITS}


@pytest.mark.parametrize(
    "limiter, std, wanted",
    [("strict", 2.9, 2.9), ("strict", 6.0, 3.0), ("loose", 4.9, 4.9), ("loose", 9.0, 4.5),
     ("balanced", 2.9, 2.9), ("balanced", 12.0, 6.0), ("none", 50.0, 50.0)],
)  # fmt: skip
def test_the_limiter_limits(limiter, std, wanted):
    z = torch.randn(2, 8, 32, 16)
    z = z / z.std() * std
    limited = limit_std(z, limiter)
    assert float(limited.std()) == pytest.approx(wanted, rel=1e-4)
    assert torch.allclose(limited / limited.std(), z / z.std(), atol=1e-5)  # one factor
    assert (limited is z) == (wanted == std)


def test_volume_matches_the_level():
    audio, reference = tone(440, gain=0.02), tone(300, gain=0.4)
    assert rms(postprocess(audio, reference, RATE, "volume")) == pytest.approx(rms(reference), rel=1e-4)
    assert torch.equal(postprocess(torch.zeros(100), reference[:100], RATE, "volume"), torch.zeros(100))


@pytest.mark.parametrize("name, passes, stops", [("filter", 1000, (10, 7900)), ("gentle", 1000, (3,))])
def test_filters_pass_and_stop(name, passes, stops):
    kept = postprocess(tone(passes), tone(passes), RATE, name)
    assert (kept - tone(passes))[800:-800].abs().max() < 0.01  # no phase shift
    for hz in stops:
        assert rms(postprocess(tone(hz, 2.0), tone(hz, 2.0), RATE, name)) < 0.85 * rms(tone(hz, 2.0))


def test_protect_brings_the_high_band_back_and_nothing_else():
    reference = tone(500) + tone(6000)
    weak = tone(500) + 0.6 * tone(6000)
    protected = postprocess(weak, reference, RATE, "protect")
    assert abs(hf_ratio_db(reference, protected)) < 0.3 < abs(hf_ratio_db(reference, weak))
    assert (protected - weak - 0.4 * tone(6000))[800:-800].abs().max() < 0.02
    lost = postprocess(tone(500) + 0.01 * tone(6000), reference, RATE, "protect")
    assert hf_ratio_db(tone(500) + 0.01 * tone(6000), lost) == pytest.approx(6, abs=0.3)  # 6 dB at most
    loud = postprocess(tone(500) + 2 * tone(6000), reference, RATE, "protect")
    assert hf_ratio_db(tone(500) + 2 * tone(6000), loud) == pytest.approx(0, abs=0.1)  # never lowered


def test_the_peak_is_limited():
    assert float(postprocess(5 * tone(440), tone(440), RATE, "limit").abs().max()) == pytest.approx(0.99)
    assert torch.equal(postprocess(tone(440), tone(440), RATE, "limit"), tone(440))


def test_steps_are_done_in_order():
    audio, reference = tone(440, gain=0.01), tone(440, gain=5.0)
    assert float(postprocess(audio, reference, RATE, "volume,limit").abs().max()) == pytest.approx(0.99)
    assert float(postprocess(audio, reference, RATE, "limit,volume").abs().max()) > 4
    assert postprocess(audio, reference, RATE, "none") is audio


@pytest.mark.parametrize("name", STEPS)
def test_short_and_silent_audio(name):
    for samples in (1, 100):
        for audio in (torch.zeros(samples), torch.randn(samples)):
            out = postprocess(audio, torch.randn(samples), RATE, name)
            assert out.shape == (samples,) and torch.isfinite(out).all()
