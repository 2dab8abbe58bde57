"""Text recipes: where the codebook acts, how solvers and seeds behave, how candidates are ranked."""

import pytest
import torch

from ddcm.errors import UserError
from ddcm.pipeline import DDCMPipeline
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import Codebook
from ddcm.recipes import RECIPES

TEXT = [name for name, recipe in RECIPES.items() if recipe.verb == "generate"]
FEW = {"steps": 6}


@pytest.fixture(scope="module")
def pipe(tiny):
    quantizer = HardQuantizer(codebook_size=32).eval().requires_grad_(False)
    return DDCMPipeline(tiny, Codebook(quantizer, tiny.name, tiny.latent_digest, {}))


@pytest.fixture(scope="module")
def second(speech):
    return speech[8000:24000]


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("duration_s", [0.01, 0.3, 1.2345])
def test_as_long_as_asked(pipe, name, duration_s):
    out = pipe.generate("a drum", duration_s, recipe=name, **FEW)
    assert out.audio.shape == (round(duration_s * 16000),) and torch.isfinite(out.audio).all()
    assert out.mel.shape[2] % 4 == 0 and 0 <= out.mel.shape[2] * 160 - len(out.audio) < 640


@pytest.mark.parametrize("name", TEXT)
def test_an_input_can_be_the_start(pipe, second, name):
    out = pipe.transform(second, 16000, "a drum", recipe=name, **FEW)
    assert out.audio.shape == second.shape
    near = pipe.transform(second, 16000, "a drum", recipe=name, strength=0.01, quantizer="none", n=1, **FEW)
    plain = pipe.reconstruct(second, 16000).latent
    assert (near.latent - plain).abs().mean() < (out.latent - plain).abs().mean()


def test_long_sounds_are_windowed(pipe):
    out = pipe.generate("rain", 12.0, steps=3)
    assert out.latent.shape == (2, 8, 256, 16) and out.audio.shape == (192000,)


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf")])
def test_durations_that_are_none(pipe, bad):
    with pytest.raises(UserError, match="duration_s"):
        pipe.generate("rain", bad)


def test_improved_at_temperature_zero_is_complete(pipe):
    """On complete's schedule: its steps and solver, and acting at every step."""
    same = dict(steps=12, solver="ddim", acts_on="estimates")
    complete = pipe.generate("rain", 1.0, recipe="complete", steps=12)
    cold = pipe.generate("rain", 1.0, recipe="improved", temperature=0.0, **same)
    assert torch.equal(cold.latent, complete.latent) and torch.equal(cold.audio, complete.audio)
    gaps = [
        float(
            (pipe.generate("rain", 1.0, recipe="improved", temperature=t, **same).latent - complete.latent).abs().mean()
        )
        for t in (1.0, 1e-3)
    ]
    assert gaps[1] < gaps[0] / 10


def test_where_the_codebook_acts(pipe):
    atoms = pipe.codebook.quantizer

    def is_atoms(z):
        return torch.equal(atoms.decode(atoms.encode(z)), z)

    free = pipe.generate("rain", 1.0, recipe="full-diffusion", n=1, **FEW).latent
    assert not is_atoms(free)
    final = pipe.generate("rain", 1.0, recipe="final", **FEW).latent
    assert is_atoms(final) and torch.equal(final, atoms(free).z)  # nothing but the last latent
    assert is_atoms(pipe.generate("rain", 1.0, recipe="complete", **FEW).latent)
    late = pipe.generate("rain", 1.0, recipe="complete", acts_on="late-estimates", trace=True, **FEW)
    assert is_atoms(late.latent)
    soft = pipe.generate("rain", 1.0, recipe="improved", **FEW).latent
    assert not is_atoms(soft) and not torch.equal(soft, free)


def test_late_means_the_last_half(pipe):
    from ddcm.pipeline.denoise import make_projection
    from ddcm.recipes import resolve

    z = torch.randn(1, 8, 2, 16)
    for steps, first in ((20, 10), (5, 2), (1, 0)):
        project = make_projection(resolve("generate", "improved"), pipe.codebook.quantizer, steps)
        assert [torch.equal(project(i, z), z) for i in range(steps)] == [i < first for i in range(steps)]


def test_solvers_agree_in_the_limit_and_differ_before(pipe):
    def latent(solver, steps):
        return pipe.generate("", 0.16, recipe="full-diffusion", n=1, solver=solver, steps=steps).latent

    exact = latent("dpm++", 60)
    gaps = [float((latent("unipc", steps) - exact).abs().mean() / exact.abs().mean()) for steps in (30, 6)]
    assert gaps[0] < 0.1 and gaps[0] < gaps[1] / 3
    assert not torch.equal(latent("unipc", 6), latent("ddim", 6))
    assert not torch.equal(latent("unipc", 6), latent("dpm++", 6))


def test_prompts_and_guidance_act(pipe):
    def latent(*prompt, **more):
        return pipe.generate(*prompt, duration_s=0.5, **FEW, **more).latent

    assert not torch.equal(latent("rain"), latent("a drum")) and not torch.equal(latent("rain"), latent(""))
    assert not torch.equal(latent("rain"), latent("rain", negative_prompt="wind"))
    assert not torch.equal(latent("rain"), latent("rain", guidance_scale=7.0))
    assert torch.equal(latent("", guidance_scale=7.0), latent(""))


def test_candidates_are_ranked_and_equal_their_seed_alone(pipe):
    out = pipe.generate("rain", 0.5, recipe="full-diffusion", seed=7, **FEW)
    ranked = [out, *out.others]
    scores = [one.info.clap_score for one in ranked]
    assert len(ranked) == RECIPES["full-diffusion"].n and scores == sorted(scores, reverse=True)
    assert {one.info.seed for one in ranked} == {7, 8, 9} and len(set(scores)) == 3
    assert scores == pytest.approx(pipe.backbone.clap_scores([one.audio for one in ranked], "rain"))
    for one in ranked:
        alone = pipe.generate("rain", 0.5, recipe="full-diffusion", seed=one.info.seed, n=1, **FEW)
        assert torch.equal(alone.audio, one.audio)


def test_no_prompt_reads_no_text_and_scores_nothing(tiny, monkeypatch):
    pipe = DDCMPipeline(tiny)
    tiny.null_condition()  # cached by now, as on any second run

    def refuse(*arguments):
        raise AssertionError("a text encoder was asked for")

    monkeypatch.setattr(tiny, "condition", refuse)
    monkeypatch.setattr(tiny, "clap_scores", refuse)
    out = pipe.generate("", 0.5, recipe="full-diffusion", n=3, **FEW)
    assert [one.info.seed for one in [out, *out.others]] == [0, 1, 2] and out.info.clap_score is None


def test_progress_counts_all_candidates(pipe):
    seen = []
    pipe.generate("", 0.3, recipe="full-diffusion", n=2, steps=5, on_step=lambda *a: seen.append(a))
    assert seen == [(i + 1, 14) for i in range(14)]  # 5 steps, a batch to decode and a piece of audio, twice


def test_the_trace_is_of_the_way(pipe, second):
    out = pipe.generate("rain", 0.5, recipe="final", steps=16, trace=True)
    timesteps = [t for t, _ in out.trace]
    assert len(out.trace) == 8 and timesteps == sorted(timesteps, reverse=True) and timesteps[-1] == 0
    assert all(mel.shape == out.mel.shape for _, mel in out.trace)
    free = pipe.generate("rain", 0.5, recipe="full-diffusion", n=1, steps=16, trace=True)
    assert torch.allclose(free.trace[-1][1], free.mel) and not pipe.generate("rain", 0.5, **FEW).trace
    assert len(pipe.transform(second, 16000, strength=0.5, steps=6, trace=True).trace) == 3


def test_soft_needs_a_codebook(tiny):
    with pytest.raises(UserError, match="--codebook"):
        DDCMPipeline(tiny).generate("rain", 0.3)


@pytest.mark.parametrize("start", ["noise", "input"])
def test_candidates_together_are_those_made_one_by_one(pipe, speech, start):
    """What a GPU does, on the CPU: to rounding, whose first consequence is a codebook's tie; so without one."""
    options = dict(recipe="full-diffusion", n=3, steps=5, seed=4)
    made = []
    for pipe.one_by_one in (True, False):
        out = (
            pipe.generate("rain", 1.0, **options)
            if start == "noise"
            else pipe.transform(speech, 16000, "rain", strength=0.5, **options)
        )
        made.append([out, *out.others])
    pipe.one_by_one = True
    for alone, together in zip(*made, strict=True):
        assert alone.info.seed == together.info.seed
        assert (alone.latent - together.latent).norm() < 1e-3 * alone.latent.norm()
