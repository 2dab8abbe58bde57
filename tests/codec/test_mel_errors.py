"""Errors of a decoded mel that the encoder goes down."""

import pytest
import torch

from ddcm.audio.mel import log_mel
from ddcm.codec.mel_errors import half_square, loud_three_halves, perceptual_error, structure_error

ERRORS = [half_square, loud_three_halves, structure_error, perceptual_error]


@pytest.fixture(scope="module")
def mel(speech):
    return log_mel(speech[None, :20480])


@pytest.mark.parametrize("measure", ERRORS)
def test_errors_grow_with_the_distance_and_have_a_gradient_everywhere(measure, mel):
    noise = torch.randn(mel.shape, generator=torch.Generator().manual_seed(0))
    errors = [float(measure(mel + share * noise, mel)) for share in (0.0, 0.1, 0.3, 1.0)]
    assert errors == sorted(errors) and errors[0] < 0.02 * errors[-1]
    for decoded in (mel.clone(), mel + noise, torch.full_like(mel, -11.5)):
        decoded.requires_grad_()
        (gradient,) = torch.autograd.grad(measure(decoded, mel), decoded)
        assert gradient.isfinite().all()


def test_structure_is_what_a_smooth_mel_lacks_and_a_louder_one_keeps(mel):
    smooth = torch.nn.functional.avg_pool2d(mel, (21, 9), 1, (10, 4), count_include_pad=False)
    louder = mel + float((smooth - mel).abs().mean())
    assert float(structure_error(smooth, mel)) > 3 * float(structure_error(louder, mel))


def test_what_lies_under_the_floor_has_no_structure(mel):
    """60 dB under the loudest cell nobody hears a difference."""
    quiet = mel < mel.max() - 9
    assert 0.05 < float(quiet.float().mean()) < 0.95
    other = torch.where(quiet, mel - 1 + torch.rand(mel.shape), mel)
    loud = torch.where(mel > mel.max() - 3, mel - 1 + torch.rand(mel.shape), mel)
    assert float(structure_error(other, mel)) < 0.05 * float(structure_error(loud, mel))


def test_a_silent_and_a_short_mel_have_errors_too():
    for frames in (1, 4, 16):
        silent = torch.full((1, 1, frames, 64), -11.5)
        assert float(structure_error(silent, silent)) / silent.numel() == pytest.approx(0, abs=1e-3)
        assert torch.isfinite(perceptual_error(silent + 1, silent))
