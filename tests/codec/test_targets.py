"""What the noise is chosen for: the latent, and the mel that comes out."""

import pytest
import soundfile
import torch

import ddcm.codec.targets
from ddcm.audio.level import normalise_level
from ddcm.audio.mel import log_mel
from ddcm.backbone import load
from ddcm.codec.targets import compute_targets, make_residual, mel_descent
from ddcm.pipeline import DDCMPipeline
from tests.conftest import EXAMPLES, ROOT


@pytest.fixture(scope="module")
def mels(speech):
    return [log_mel(speech[None, start : start + 10240]) for start in (0, 10240)]


def test_the_descent_is_minus_the_gradient(tiny, mels):
    targets = compute_targets(tiny, mels)
    generator = torch.Generator().manual_seed(0)
    x0 = targets.z + 0.3 * torch.randn(targets.z.shape, generator=generator)
    descent, along = mel_descent(tiny, x0, targets.mels), torch.randn(targets.z.shape, generator=generator)

    def errors(z: torch.Tensor) -> torch.Tensor:
        return 0.5 * (tiny.decode(z) - targets.mels).double().square().sum(dim=(1, 2, 3))

    with torch.no_grad():
        slope = (errors(x0 + 0.01 * along) - errors(x0 - 0.01 * along)) / 0.02
    torch.testing.assert_close(-(descent * along).double().sum(dim=(1, 2, 3)), slope, rtol=0.02, atol=0.05)
    assert not descent.requires_grad and torch.allclose(
        mel_descent(tiny, x0[1:], targets.mels[1:]), descent[1:], atol=1e-4
    )


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
def test_the_residual_mixes_two_parts_of_equal_power(tiny, mels, weight):
    targets = compute_targets(tiny, mels, weight)
    with torch.no_grad():  # as inside the denoising loop
        x0 = targets.z + 0.3
        residual, first = make_residual(tiny, targets, 1)(0, x0), (targets.z - x0) * targets.weights
    if not weight:
        assert torch.equal(residual, first)
        return
    second = residual - first / first.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    torch.testing.assert_close(
        second.square().mean(dim=(1, 2, 3)).sqrt(), torch.full((2,), weight), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_the_mel_takes_part_in_the_last_steps(tiny, mels, share):
    targets, steps = compute_targets(tiny, mels, 1.0, share), 10
    with torch.no_grad():
        x0 = targets.z + 0.3
        latent_alone = (targets.z - x0) * targets.weights
        both = make_residual(tiny, targets, 1)(0, x0) if share else latent_alone
        compute = make_residual(tiny, targets, steps)
        for step in range(steps):
            expected = both if step >= steps - round(steps * share) else latent_alone
            assert torch.equal(compute(step, x0), expected)


@pytest.mark.parametrize("interval, passes", [(1, [4, 5, 6, 7, 8, 9]), (2, [4, 6, 8]), (4, [4, 8]), (9, [4])])
def test_the_decoder_is_asked_in_every_so_many_steps(tiny, mels, interval, passes, monkeypatch):
    """Between, the mel's part stays what it was."""
    targets, asked = compute_targets(tiny, mels, 1.0, 0.6, interval), []
    monkeypatch.setattr(ddcm.codec.targets, "mel_descent", lambda *args: asked.append(step) or mel_descent(*args))
    with torch.no_grad():
        compute, parts = make_residual(tiny, targets, 10), []
        for step in range(10):
            x0 = targets.z + 0.3 + 0.1 * step
            first = (targets.z - x0) * targets.weights
            parts.append(compute(step, x0) - first / first.square().mean(dim=(1, 2, 3), keepdim=True).sqrt())
    assert asked == passes
    for step in range(5, 10):
        assert torch.allclose(parts[step], parts[step - 1], atol=1e-4) == (step not in passes)


def test_silence_has_a_finite_residual(tiny):
    targets = compute_targets(tiny, [log_mel(torch.zeros(1, 10240))])
    reached = tiny.decode(targets.z)
    same = compute_targets(tiny, [reached.detach()])
    assert make_residual(tiny, same, 1)(0, same.z).isfinite().all()


def test_noise_for_the_mel_brings_the_mel_nearer():
    pipe = DDCMPipeline(load(str(ROOT / "checkpoints" / "pocket")))
    audio, rate = soundfile.read(EXAMPLES / "melodic.flac", dtype="float32", frames=25600)
    audio = torch.from_numpy(audio)
    mel, sizes, errors = log_mel(normalise_level(audio)[0][None]), [], []
    for weight in (0.0, 1.0):
        data = pipe.compress(audio, rate, kbps=2, steps=10, mel_weight=weight)
        out = pipe.decompress(data, vocoder="backbone")
        sizes.append(len(data))
        errors.append(float((out.mel - mel).abs().mean()))
    assert sizes[0] == sizes[1] and errors[1] < 0.95 * errors[0]
