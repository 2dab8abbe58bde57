"""The published repositories' layout at a small size: stock saves it, both load it, and both compute the same."""

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import full_size
from ddcm.backbone import load
from ddcm.backbone.base import Condition
from ddcm.backbone.hifigan import HifiGan2d
from ddcm.cli.main import main
from ddcm.diffusion.loop import denoise_loop
from ddcm.errors import UserError
from tests.conftest import ROOT

pytestmark = pytest.mark.filterwarnings("ignore")
POCKET = ROOT / "checkpoints" / "pocket"


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "small"
    full_size.write(folder, "small", layout="hub")
    return folder


@pytest.fixture(scope="module")
def backbone(hub):
    return load(hub)


@pytest.mark.parametrize(
    "variant, count",
    [("audioldm2", 346_943_496), pytest.param("audioldm2-large", 718_012_296, marks=pytest.mark.slow)],
)
def test_sizes_are_the_published_ones(variant, count):
    """Parameters of the UNet as published, counted without memory for them."""
    from diffusers import AudioLDM2UNet2DConditionModel

    with torch.device("meta"):
        unet = AudioLDM2UNet2DConditionModel(**full_size.sizes(variant)[0]["unet"])
    assert sum(p.numel() for p in unet.parameters()) == count


def test_the_layout_is_the_hubs(hub):
    index = json.loads((hub / "model_index.json").read_text())
    assert index["language_model"] == ["transformers", "GPT2Model"]
    assert index["tokenizer"][1] == "RobertaTokenizerFast" and index["tokenizer_2"][1] == "T5TokenizerFast"
    assert json.loads((hub / "text_encoder" / "config.json").read_text())["torch_dtype"] == "float64"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_it_loads_in_every_dtype(hub, dtype):
    half = load(hub, dtype=dtype)
    condition = half.condition("a bass drum")
    assert condition.generated.shape == (1, 8, 48) and condition.text.shape[2] == 64
    eps = half.eps(torch.randn(1, 8, 4, 16), 500, condition)
    half.check()
    assert next(half.unet.parameters()).dtype == getattr(torch, dtype) and torch.isfinite(eps).all()
    assert half.heads == "hub" and half.digest == load(hub).digest


def test_a_text_to_speech_checkpoint_is_refused(hub, tmp_path):
    for part in ("vae", "unet", "vocoder", "scheduler"):
        (tmp_path / part).mkdir()
        for file in (hub / part).glob("*.json"):
            config = json.loads(file.read_text())
            if part == "unet":
                config["cross_attention_dim"] = [[None, 768]] * 4
            (tmp_path / part / file.name).write_text(json.dumps(config))
    with pytest.raises(UserError, match="number of text conditions is 1, expected 2"):
        load(tmp_path)


def test_encoders_are_gone_before_the_next_one_comes(hub, monkeypatch):
    import transformers

    made: list[weakref.ref] = []
    for name in ("ClapTextModelWithProjection", "T5EncoderModel", "GPT2Model"):
        kind = getattr(transformers, name)

        def watched(*arguments, real=kind.from_pretrained, **options):
            gc.collect()
            assert not any(ref() for ref in made)
            model = real(*arguments, **options)
            made.append(weakref.ref(model))
            return model

        monkeypatch.setattr(kind, "from_pretrained", watched)
    fresh = load(hub)
    first = fresh.condition("rain")
    gc.collect()
    assert len(made) == 3 and not any(ref() for ref in made)
    assert fresh.condition("rain") is first and len(made) == 3  # cached


@pytest.mark.parametrize("prompt", ["", "a bass drum, and a snare", "rain on a tin roof " * 8])
@pytest.mark.parametrize("which", ["hub", "pocket"])
def test_conditions_are_the_stock_pipelines(hub, which, prompt):
    folder = hub if which == "hub" else POCKET
    text, mask, generated = stock_pipeline(folder).encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
    ours = load(folder).condition(prompt)
    assert torch.equal(ours.mask, mask) and generated.std() > 0.1
    for mine, theirs in ((ours.text, text), (ours.generated, generated)):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_a_prompt_longer_than_is_read_says_so(hub):
    with pytest.warns(UserWarning, match="only the first 128 tokens of the prompt are read"):
        load(hub).condition("rain " * 128)


def stock_pipeline(folder):
    from diffusers import AudioLDM2Pipeline
    from transformers import GPT2LMHeadModel

    language_model = GPT2LMHeadModel.from_pretrained(folder / "language_model", dtype=torch.float32)
    pipeline = AudioLDM2Pipeline.from_pretrained(folder, torch_dtype=torch.float32, language_model=language_model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stock_latents(folder, prompt: Condition, null: Condition, start: torch.Tensor, steps: int, scale: float):
    pipeline = stock_pipeline(folder)
    both = Condition.stack(null, prompt)  # the stock pipeline wants texts of one length
    latents = pipeline(
        prompt_embeds=both.text[1:], generated_prompt_embeds=both.generated[1:], attention_mask=both.mask[1:],
        negative_prompt_embeds=both.text[:1], negative_generated_prompt_embeds=both.generated[:1],
        negative_attention_mask=both.mask[:1], num_inference_steps=steps, guidance_scale=scale,
        audio_length_in_s=start.shape[2] / 25, latents=start.clone(), output_type="latent",
    ).audios  # fmt: skip
    return latents, pipeline.scheduler.timesteps.tolist()


@pytest.mark.parametrize("which, scale", [("small", 1.0), ("small", 3.5), ("pocket", 3.5)])
def test_latents_equal_the_stock_pipelines(backbone, hub, which, scale):
    """Same start, steps and embeddings: the same latents, guided or not, in units of their spread."""
    folder = hub if which == "small" else POCKET
    ours = backbone if which == "small" else load(folder)
    start = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(3))
    prompt, null = ours.condition("a bass drum, and a snare"), ours.null_condition()
    theirs, timesteps = stock_latents(folder, prompt, null, start, 5, scale)
    denoise = ours.denoiser("a bass drum, and a snare", guidance_scale=scale)
    # The stock pipeline stops at abar[0], where our loop would make one more estimate.
    mine = denoise_loop(lambda x, t: denoise(x, t) if t else x, start, [*timesteps, 0], ours.alphas_cumprod)
    assert theirs.std() > 0.1 and (mine - theirs).abs().max() / theirs.std() < 1e-4


def test_a_filled_text_is_masked(backbone):
    x, condition = torch.randn(1, 8, 8, 16), backbone.condition("rain")
    filled = condition.pad_text(32)
    assert filled.text.shape[1] == 32 and filled.mask.sum() == condition.mask.sum()
    assert torch.allclose(backbone.eps(x, 500, filled), backbone.eps(x, 500, condition), atol=1e-5)


def test_a_negative_prompt_is_padded_away(backbone):
    """One call for both halves of guidance gives what two calls give, whatever the lengths of the texts."""
    x = torch.randn(2, 8, 8, 16)
    conditions = [backbone.condition(p) for p in ("rain", "a long walk in the rain with a dog")]
    together = backbone.eps(torch.cat([x, x]), 400, Condition.stack(*conditions))
    apart = torch.cat([backbone.eps(x, 400, condition) for condition in conditions])
    assert torch.allclose(together, apart, atol=1e-5)


class HostReads(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: numbers taken out of float32 tensors or flags."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        reads = function.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)
        if reads and args[0].dtype != torch.float64:  # the schedule is float64, and lives on the CPU
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("solver", ["ddim", "dpm++", "unipc"])
def test_the_loop_never_waits_for_the_device(backbone, solver):
    denoise, reads = backbone.denoiser("rain", guidance_scale=2.0), HostReads()
    with reads:
        denoise_loop(denoise, torch.randn(1, 8, 8, 16), [900, 500, 100], backbone.alphas_cumprod, solver=solver)
    assert not reads.seen
    with reads:
        backbone.check()
    assert len(reads.seen) == 1  # the one question, after the loop


def test_the_flat_vocoder_is_the_vocoder(backbone):
    original = backbone.parts.make("vocoder").eval()
    mel = torch.randn(2, 24, 64)
    wanted = original(mel)
    assert isinstance(backbone.vocoder, HifiGan2d) and wanted.std() > 1e-3
    assert torch.allclose(backbone.vocoder(mel), wanted, atol=1e-5)


def test_a_unet_that_breaks_is_named_after_the_loop(hub, capsys, tmp_path):
    broken = load(hub)
    with torch.no_grad():
        next(broken.unet.parameters()).fill_(float("nan"))
    broken.denoiser()(torch.randn(1, 8, 4, 16), 10)
    with pytest.raises(UserError, match="UNet gave NaN"):
        broken.check()
    broken.check()  # asked and answered


@pytest.mark.slow
def test_compiled_is_the_same_to_rounding(hub):
    plain, compiled = load(hub), load(hub, compiled=True)
    x = torch.randn(1, 8, 8, 16)
    expected = plain.denoiser("rain", guidance_scale=2.0)(x, 500)
    assert torch.allclose(compiled.denoiser("rain", guidance_scale=2.0)(x, 500), expected, atol=1e-4)
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled.denoiser("rain on a tin roof, far away a dog", guidance_scale=2.0)(x, 500)


def test_inspect_says_what_a_backbone_can_do(hub, capsys):
    assert main(["inspect", str(hub)]) == 0
    said = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(hub / "vae")
    assert said["vae parameters"].strip() == f"{sum(p.numel() for p in vae.parameters()):,}"
    assert said["heads"].strip().startswith("hub: [8, 8, 8, 8]; original: [1, 1, 2, 2]")
    for what in ("reconstruct", "prompts, while they are encoded", "candidates by CLAP score"):
        assert "GB" in said[what]
