"""The verbs on tensors, on random weights: lengths, levels, seeds, windows, refusals."""

import pytest
import torch

from ddcm.audio import windows
from ddcm.audio.layout import fixed_layout
from ddcm.errors import UserError
from ddcm.pipeline import DDCMPipeline
from ddcm.pipeline.encode import prepare
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import Codebook
from ddcm.recipes import RECIPES, resolve


@pytest.fixture(scope="module")
def pipe(tiny):
    quantizer = HardQuantizer(codebook_size=32).eval().requires_grad_(False)
    return DDCMPipeline(tiny, Codebook(quantizer, tiny.name, tiny.latent_digest, {}))


@pytest.mark.parametrize("samples", [1, 2, 159, 160, 639, 640, 641, 5000, 163840, 163841, 200001])
def test_length_is_kept_to_the_sample(pipe, samples):
    out = pipe.reconstruct(torch.randn(samples) * 0.1, 16000)
    assert out.audio.shape == (samples,) and out.sample_rate == 16000 and torch.isfinite(out.audio).all()


def test_other_rates_and_channels(pipe, speech):
    stereo = torch.stack([speech, speech])[:, ::2]
    assert pipe.reconstruct(stereo.numpy(), 8000).audio.shape == (2 * stereo.shape[1],)


def test_level_is_kept(pipe, speech):
    loud, quiet = (pipe.reconstruct(speech * gain, 16000).audio for gain in (0.5, 0.01))
    assert torch.allclose(quiet * 50, loud, rtol=1e-2, atol=1e-4)


def test_silence_works(pipe):
    for recipe in ("matched", "quantised"):
        assert torch.isfinite(pipe.reconstruct(torch.zeros(8000), 16000, recipe).audio).all()


def test_quantised_latents_are_atoms(pipe, speech):
    latent = pipe.reconstruct(speech, 16000, "quantised").latent
    quantizer = pipe.codebook.quantizer
    assert torch.equal(quantizer.decode(quantizer.encode(latent)), latent)
    assert not torch.equal(latent, pipe.reconstruct(speech, 16000).latent)


def test_same_seed_same_samples(pipe, speech):
    options = dict(strength=0.4, steps=8)
    first, again = (pipe.transform(speech, 16000, seed=3, **options).audio for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, pipe.transform(speech, 16000, seed=4, **options).audio)
    assert not torch.equal(first, pipe.transform(speech, 16000, "a drum", seed=3, **options).audio)


def test_strength_zero_is_the_quantised_round_trip(pipe, speech):
    out = pipe.transform(speech, 16000, strength=0.0)
    assert torch.equal(out.audio, pipe.reconstruct(speech, 16000, "quantised", vocoder="refined").audio)
    assert out.info.unet_steps == 0


def test_progress_counts_to_the_end(pipe):
    seen = []
    pipe.transform(torch.randn(16000 * 11), 16000, strength=0.5, steps=8, on_step=lambda *a: seen.append(a))
    assert seen == [(i + 1, 8) for i in range(8)]  # a batch in, 4 steps, a batch out, 2 pieces of audio


def test_long_audio_is_windowed_without_seams(pipe):
    audio = torch.randn(16000 * 25, generator=torch.Generator().manual_seed(0)) * 0.1
    whole = pipe.backbone.encode(prepare(pipe.set_up("reconstruct"), audio, 16000).mel)
    out = pipe.reconstruct(audio, 16000, "matched")
    assert out.latent.shape == (3, 8, 256, 16) and out.mel.shape == (1, 1, 2500, 64)
    # The tiny VAE only looks a few frames around, so windows and the whole agree, seams included.
    direct = pipe.backbone.decode(whole)
    assert (out.mel - direct).abs().mean() < 0.05 * direct.std()
    vocoded = pipe.backbone.vocode(out.mel)[0]
    prepared = prepare(pipe.set_up("reconstruct"), audio, 16000)
    assert torch.allclose(prepared.reference.level.undo(vocoded), out.audio, atol=1e-4)


def test_windows_cover_everything_and_join_back():
    for total in (4, 1024, 1028, 1984, 5000):
        layout = fixed_layout(total)
        first, size = layout.starts, layout.size
        assert first[0] == 0 and first[-1] + size == total and all(s % 4 == 0 for s in first)
        mel = torch.randn(1, 1, total, 2)
        cut = torch.cat([mel[:, :, s : s + size] for s in first])
        assert torch.allclose(windows.cross_fade(cut, first), mel, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (dict(recipe="inputbased"), "nearest is 'input-based'"),
        (dict(recipe="matched"), "is for reconstruct"),
        (dict(strength=1.5), "nearest valid one is 1"),
        (dict(strength=-0.5), "nearest valid one is 0"),
        (dict(solver="euler"), "ddim, dpm"),
        (dict(steps=0), "steps 0"),
        (dict(quantizer="medium"), "none, hard"),
        (dict(vocoder="melgan"), "backbone, refined"),
    ],
)
def test_bad_settings_are_refused(pipe, arguments, says):
    with pytest.raises(UserError, match=says):
        pipe.transform(torch.zeros(1600), 16000, **arguments)


def test_bad_audio_and_missing_codebook(tiny, pipe):
    for bad in (torch.zeros(0), torch.full((100,), float("nan")), torch.zeros(1, 2, 3)):
        with pytest.raises(UserError):
            pipe.reconstruct(bad, 16000)
    with pytest.raises(UserError, match="--codebook"):
        DDCMPipeline(tiny).reconstruct(torch.zeros(1600), 16000, "quantised")


def test_a_codebook_of_other_latents_is_refused(tiny):
    other = Codebook(HardQuantizer(codebook_size=32), "some-backbone", "0123", {})
    with pytest.raises(UserError, match="some-backbone"):
        DDCMPipeline(tiny, other)


def test_flags_win_over_recipes_over_defaults():
    assert resolve("transform").strength == RECIPES["input-based"].strength == 0.5
    assert resolve("transform", strength=0.1, steps=None).strength == 0.1
    assert resolve("transform", solver="ddim").steps == RECIPES["input-based"].steps
    with pytest.raises(TypeError, match="tempo"):
        resolve("transform", tempo=3)


def test_reconstruction_tells_how_far_it_is(tiny):
    seen = []
    pipe = DDCMPipeline(tiny, batch_size=1)
    pipe.reconstruct(torch.randn(16000 * 15), 16000, on_step=lambda done, of: seen.append((done, of)))
    assert seen == [(i + 1, 6) for i in range(6)]  # 2 windows in, 2 out, 2 pieces of audio
