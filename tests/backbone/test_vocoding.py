"""From mel to audio: the chain of strategies, Griffin-Lim, the high-band lift."""

import math

import pytest
import torch

from ddcm.audio.mel import log_mel
from ddcm.audio.postprocess import HIGH, lift_high
from ddcm.backbone import load
from ddcm.backbone.vocoding import STRATEGIES, vocode
from ddcm.errors import UserError
from ddcm.evaluation.signal_metrics import hf_ratio_db
from ddcm.pipeline import DDCMPipeline
from ddcm.recipes import CHOICES, RECIPES
from tests.conftest import ROOT

CHAIN = RECIPES["ultimate-fix"].vocoder


class Broken:
    """A backbone whose vocoder fails, in the stated dtypes."""

    def __init__(self, backbone, fails, error=None):
        self.backbone, self.fails, self.error, self.calls = backbone, fails, error or UserError("NaN"), []

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def vocode(self, mel, dtype=None):
        self.calls.append(dtype)
        if dtype in self.fails:
            raise self.error
        return self.backbone.vocode(mel, dtype)


@pytest.fixture(scope="module")
def mel(speech):
    return log_mel(speech[None, : 16000 * 2])


def test_every_name_of_a_recipe_is_there():
    assert set(CHOICES["vocoder"]) == set(STRATEGIES) and CHAIN == "backbone,direct,griffin-lim"


@pytest.mark.parametrize(
    "fails, used, tried", [((), "backbone", [None]), ((None,), "direct", [None, "float32"]),
                           ((None, "float32"), "griffin-lim", [None, "float32"])],
)  # fmt: skip
def test_the_next_one_is_used_only_when_the_one_before_fails(tiny, mel, fails, used, tried):
    backbone = Broken(tiny, fails)
    audio, name, failed = vocode(mel, CHAIN, backbone)
    assert name == used and backbone.calls == tried and len(failed) == CHAIN.split(",").index(used)
    assert audio.shape == (160 * mel.shape[2],) and torch.isfinite(audio).all()


def test_the_notes_name_the_vocoder(tiny, speech):
    out = DDCMPipeline(Broken(tiny, (None,))).reconstruct(speech, 16000, "ultimate-fix")
    assert out.info.vocoder == "direct" and out.info.vocoder_failed == ("backbone: NaN",)
    with pytest.raises(UserError, match="NaN"):  # one strategy, no fallback
        DDCMPipeline(Broken(tiny, (None,))).reconstruct(speech, 16000, "final-optimized")


def test_numbers_that_are_not_finite_are_a_failure(tiny, mel):
    backbone = Broken(tiny, ())
    backbone.vocode = lambda mel, dtype=None: torch.full((1, 160 * mel.shape[2]), math.nan)
    assert vocode(mel, CHAIN, backbone)[1] == "griffin-lim"


def test_no_memory_is_not_a_reason_to_change_the_result(tiny, mel):
    with pytest.raises(torch.OutOfMemoryError):
        vocode(mel, CHAIN, Broken(tiny, (None,), torch.OutOfMemoryError("no")))


def test_direct_survives_a_mel_out_of_range(tiny, mel):
    wild = mel.clone()
    wild[..., :5] = math.nan
    wild[..., 5:9] = 1e9
    audio, name, failed = vocode(wild, "backbone,direct", tiny)
    assert name == "direct" and len(failed) == 1 and torch.isfinite(audio).all()


def test_griffin_lim_has_the_mel_it_was_given(tiny, mel):
    audio, _, _ = vocode(mel, "griffin-lim", tiny)
    again, _, _ = vocode(mel, "griffin-lim", tiny)
    assert torch.equal(audio, again)  # its phases are seeded
    heard = log_mel(audio[None])
    loud = mel > -7
    assert float((heard - mel)[loud].abs().mean()) < 0.5
    assert float((heard - mel)[loud].abs().mean()) < float((torch.roll(heard, 1, 2) - mel)[loud].abs().mean())


@pytest.mark.parametrize("frames", [4, 8, 1100])
def test_griffin_lim_at_any_length(tiny, frames):
    audio, _, _ = vocode(torch.full((1, 1, frames, 64), -11.5129), "griffin-lim", tiny)
    assert audio.shape == (160 * frames,) and audio.abs().max() < 1e-2


def test_the_lift_raises_the_high_bands_and_nothing_below(mel):
    lifted, factor = lift_high(mel, kept=0.75)
    assert 1 < factor <= 1.5 and torch.equal(lifted[..., :HIGH], mel[..., :HIGH])
    assert torch.allclose(lifted[..., HIGH:] - mel[..., HIGH:], torch.tensor(factor).log(), atol=1e-5)


@pytest.mark.parametrize(
    "gap_db, kept, wanted",
    [(2, 0.1, 1.2), (2, 1 / 1.15, 1.15), (9, 0.1, 1.5), (9, 0.8, 1.25), (-3, 0.1, 1.0), (9, 0.0, 1.5)],
)
def test_the_factor_is_the_formula_up_to_what_was_lost(gap_db, kept, wanted):
    flat = torch.full((1, 1, 8, 64), -3.0)
    flat[..., HIGH:] -= gap_db / 8.685889638
    assert lift_high(flat, kept)[1] == pytest.approx(wanted, rel=1e-4)


def test_the_lift_waits_for_a_tenth(mel):
    for kept, done in ((2.0, False), (0.91, False), (0.89, True)):
        assert (lift_high(mel, kept)[1] > 1) == done


def test_the_lift_is_heard(speech):
    """With a vocoder that takes a third of the high band away, the recipe brings some of it back."""
    backbone = load(ROOT / "checkpoints" / "pocket")
    whole = backbone.vocode

    def dull(mel, dtype=None):
        audio = whole(mel, dtype)
        spectrum = torch.fft.rfft(audio)
        spectrum[:, spectrum.shape[1] // 2 :] *= 0.67
        return torch.fft.irfft(spectrum, n=audio.shape[1])

    backbone.vocode = dull
    pipe = DDCMPipeline(backbone)
    off, on = (pipe.reconstruct(speech, 16000, "v4-high-freq", high_lift=lift) for lift in (False, True))
    assert on.info.high_lift > 1.1
    assert hf_ratio_db(speech, on.audio) > hf_ratio_db(speech, off.audio) + 0.5
