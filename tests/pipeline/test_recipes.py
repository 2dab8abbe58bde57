"""Every row of the table: it runs on anything, and each of its settings has its effect."""

from dataclasses import asdict, fields

import pytest
import torch

from ddcm.audio.files import read_audio
from ddcm.audio.search import find_audio
from ddcm.errors import UserError
from ddcm.pipeline import DDCMPipeline
from ddcm.pipeline.encode import prepare
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import Codebook
from ddcm.recipes import (
    CHOICES,
    KINDS,
    MEASURED_DB,
    MEASURED_KINDS,
    NEEDS,
    RANGES,
    RECIPES,
    Recipe,
    advise,
    list_settings,
    resolve,
)  # fmt: skip
from tests.conftest import EXAMPLES, ROOT

RECONSTRUCT = [name for name, recipe in RECIPES.items() if recipe.verb == "reconstruct"]
FASTER = {"steps": 3}


@pytest.fixture(scope="module")
def pipe(tiny):
    quantizer = HardQuantizer(codebook_size=32).eval().requires_grad_(False)
    return DDCMPipeline(tiny, Codebook(quantizer, tiny.name, tiny.latent_digest, {}))


def inputs():
    """Two seconds of every example; 48 kHz stereo, 8 kHz, 0.3 s: name -> (audio, rate)."""
    noise = torch.randn(2, 48000, generator=torch.Generator().manual_seed(1)) * 0.1
    found = {name.stem: (read_audio(path)[:32000], 16000) for path, name in find_audio([EXAMPLES])}
    return found | {"stereo": (noise, 48000), "phone": (noise[0, :8000], 8000), "short": (noise[0, :4800], 16000)}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_on_everything(pipe, name):
    verb = "reconstruct" if RECIPES[name].verb == "reconstruct" else "transform"  # text recipes take an input too
    for what, (audio, rate) in inputs().items():
        more = FASTER if verb == "transform" else {}
        out = getattr(pipe, verb)(audio, rate, recipe=name, **more)
        assert out.audio.shape == (round(audio.shape[-1] * 16000 / rate),) and torch.isfinite(out.audio).all(), what
        assert out.info.recipe == resolve(verb, name, **more)


def test_every_row_says_what_it_is():
    for name, recipe in RECIPES.items():
        assert recipe.about and recipe.verb in CHOICES["verb"], name
        assert set(list_settings(recipe)) <= set(asdict(recipe))
    assert len(RECONSTRUCT) == 9


# What the scripts' table says of each row (features, latent, limiter, vocoder, after).
@pytest.mark.parametrize(
    "name, said",
    [
        ("matched", ("matched", 1.0, "none", "backbone", False, "none")),
        ("refined", ("matched", 1.0, "none", "refined", False, "none")),
        ("ultimate-fix", ("clap", 1.0, "strict", "backbone,direct,griffin-lim", False, "volume,filter")),
        ("v3-balanced", ("clap", 0.7, "strict", "backbone", False, "volume")),
        ("v4-high-freq", ("librosa-high", 1.0, "loose", "backbone", True, "none")),
        ("v5-high-freq", ("librosa-high", 1.0, "loose", "backbone", True, "protect")),
        ("final-optimized", ("clap", 0.7, "balanced", "backbone", False, "volume,gentle,limit")),
        ("critical-fix", ("plain", 0.0, "none", "backbone", False, "limit")),
    ],
)
def test_rows_are_those_of_the_scripts(name, said):
    recipe = RECIPES[name]
    assert said == (
        recipe.features, recipe.mode_share, recipe.limiter, recipe.vocoder, recipe.high_lift, recipe.after
    )  # fmt: skip


@pytest.mark.parametrize("name", ["v3-balanced", "final-optimized"])
def test_the_mix_is_70_to_30(pipe, speech, name):
    """0.7 mode + 0.3 sample, with the same sample that mode_share 0 gives."""
    mode, mixed, sample = (
        pipe.reconstruct(speech, 16000, name, limiter="none", seed=4, **share).latent
        for share in ({"mode_share": 1.0}, {}, {"mode_share": 0.0})
    )
    assert torch.allclose(mixed, 0.7 * mode + 0.3 * sample, atol=1e-5) and not torch.equal(mixed, mode)


def test_the_sample_is_of_the_posterior(pipe, speech):
    given = prepare(pipe.set_up("reconstruct"), speech, 16000)
    mean, std = pipe.backbone.posterior(given.mel)
    drawn = pipe.reconstruct(speech, 16000, mode_share=0.0, seed=1).latent / pipe.backbone.scaling_factor
    unit = (drawn - mean) / std
    assert abs(float(unit.mean())) < 0.05 and float(unit.std()) == pytest.approx(1, abs=0.05)
    other = pipe.reconstruct(speech, 16000, mode_share=0.0, seed=2).latent
    assert not torch.equal(drawn * pipe.backbone.scaling_factor, other)


@pytest.fixture
def wide(pipe, monkeypatch):
    """Latents that spread so far that every limiter acts."""
    posterior = pipe.backbone.posterior
    monkeypatch.setattr(pipe.backbone, "posterior", lambda mel: (posterior(mel)[0] * 1000, posterior(mel)[1]))


@pytest.mark.parametrize("name", [name for name in RECONSTRUCT if RECIPES[name].limiter != "none"])
def test_the_limiter_acts_on_the_latent_before_scaling(pipe, speech, name, wide):
    out, free = (pipe.reconstruct(speech, 16000, name, **more) for more in ({}, {"limiter": "none"}))
    before, after = (float((one.latent / pipe.backbone.scaling_factor).std()) for one in (free, out))
    wanted = {"strict": 3.0, "loose": 4.5, "balanced": (3 * before) ** 0.5}[RECIPES[name].limiter]
    assert before > 5 and after == pytest.approx(wanted, rel=1e-3)


ACTS_ALWAYS = {"mode_share", "limiter", "after", "quantizer", "acts_on"}  # the others wait for a failure or a loss


@pytest.mark.parametrize(
    "name, setting",
    [(n, s) for n in RECONSTRUCT for s in list_settings(RECIPES[n]) if s in ACTS_ALWAYS],
)
def test_without_a_setting_of_its_row_a_recipe_sounds_different(pipe, speech, name, setting, wide):
    default = next(field.default for field in fields(Recipe) if field.name == setting)
    sounds = [pipe.reconstruct(speech * 40, 16000, name, **more).audio for more in ({}, {setting: default})]
    assert not torch.allclose(*sounds, rtol=1e-3)


@pytest.mark.parametrize("name", [name for name in RECONSTRUCT if RECIPES[name].features != "matched"])
def test_raw_features_and_their_name(pipe, speech, name):
    converted, raw = (pipe.reconstruct(speech, 16000, name, raw_features=raw) for raw in (False, True))
    wanted = "librosa" if RECIPES[name].features == "clap" else RECIPES[name].features  # tiny has no extractor
    assert converted.info.features == raw.info.features == wanted
    assert not torch.allclose(converted.latent, raw.latent, atol=0.1)


@pytest.mark.parametrize("name", ["v4-high-freq", "v5-high-freq"])
def test_the_lift_is_noted(pipe, speech, name):
    assert 1.0 <= pipe.reconstruct(speech, 16000, name).info.high_lift <= 1.5
    assert pipe.reconstruct(speech, 16000, name, high_lift=False).info.high_lift is None


def test_volume_is_matched_and_peaks_are_limited(pipe, speech):
    level = float(pipe.reconstruct(speech, 16000, "v3-balanced").audio.square().sum())
    assert level == pytest.approx(float(speech.square().sum()), rel=1e-3)
    assert float(pipe.reconstruct(speech * 40, 16000, "critical-fix").audio.abs().max()) <= 0.99 + 1e-6


def test_what_the_codebook_did_is_noted(pipe, speech):
    out = pipe.reconstruct(speech, 16000, "quantised")
    codes = pipe.codebook.quantizer.encode(out.latent)
    assert out.info.usage == len(codes.unique()) / 32 and 1 <= out.info.perplexity <= 32


@pytest.mark.parametrize(
    "name, value", [(n, v) for n, (a, b) in RANGES.items() for v in (a - 1, b + 1) if abs(v) < 1e9]
)
def test_numbers_out_of_range_are_named(name, value):
    with pytest.raises(UserError, match=f"{name} {value}.*nearest valid"):
        Recipe("transform", "", **{name: value})


@pytest.mark.parametrize("name", [name for name in CHOICES if name != "verb"])
def test_unknown_choices_are_named(name):
    with pytest.raises(UserError, match=f"{name} 'nonsense' is not known; use one of: {CHOICES[name][0]}"):
        Recipe("transform", "", **{name: "nonsense"})
    if name in ("vocoder", "after"):
        with pytest.raises(UserError, match="'nonsense'"):
            Recipe("transform", "", **{name: f"{CHOICES[name][0]},nonsense"})


@pytest.mark.parametrize("kind", MEASURED_KINDS)
def test_advice_follows_the_page_of_measurements(kind):
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    head, _, *lines = page[page.index("| recipe | speech |") :].split("\n\n")[0].splitlines()
    names = [cell.strip() for cell in head.split("|")]
    rows = {cells[1].strip(): float(cells[names.index(kind)]) for cells in (line.split("|") for line in lines)}
    assert {name: values[MEASURED_KINDS.index(kind)] for name, values in MEASURED_DB.items()} == rows
    if kind != "all":
        (best, why), *others = advise(kind)
        assert rows[best] == min(rows.values()) and f"{rows[best]:.2f} over clips of {kind}" in why
        assert all(f"; {rows[name]:.2f}" in why and "seed document" in why for name, why in others)


def test_advice_names_recipes():
    for what in [*NEEDS, *KINDS]:
        assert all(name in RECIPES and why for name, why in advise(what))
    assert [name for name, _ in advise("speech")] == ["refined", "ultimate-fix", "final-optimized"]
    with pytest.raises(UserError, match="nearest is 'music'"):
        advise("musik")
    assert set(KINDS) == {"music", "speech", "electronic", "ambient", "effects"}
