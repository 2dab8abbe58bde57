"""The contract, on random weights; loading is tested on the shipped backbone in test_pocket.py."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from ddcm.backbone import load
from ddcm.backbone.tiny import tiny_backbone
from ddcm.errors import UserError
from ddcm.runtime.files import resolve_shipped
from tests.conftest import EXAMPLES


def test_shapes(tiny):
    mel = torch.randn(2, 1, 40, 64)
    z = tiny.encode(mel)
    assert z.shape == (2, 8, 10, 16) and z.dtype == torch.float32
    assert tiny.decode(z).shape == mel.shape
    assert tiny.vocode(mel).shape == (2, 6400)
    assert tiny.eps(z, 500, tiny.null_condition()).shape == z.shape


def test_z_is_scaled_and_decode_undoes_it(tiny):
    mel = torch.randn(1, 1, 16, 64)
    mean, std = tiny.posterior(mel)
    assert torch.equal(tiny.encode(mel), mean * tiny.scaling_factor) and (std > 0).all()
    assert torch.allclose(tiny.decode(tiny.encode(mel)), tiny.vae.decode(mean), atol=1e-4)


def test_x0_is_the_inverse_of_noising(tiny):
    x, eps = torch.randn(2, 1, 8, 4, 16)
    abar = float(tiny.alphas_cumprod[321])
    noised = abar**0.5 * x + (1 - abar) ** 0.5 * eps
    assert torch.allclose(tiny.x0_from_eps(noised, 321, eps), x, atol=1e-5)
    assert tiny.alphas_cumprod[0] == pytest.approx(0.9985)
    assert tiny.alphas_cumprod[999] == pytest.approx(1.423e-4, rel=1e-3)


def test_guidance(tiny):
    x = torch.randn(1, 8, 4, 16)
    prompt, null = tiny.condition("a drum"), tiny.null_condition()
    eps = {name: tiny.eps(x, 300, c) for name, c in (("prompt", prompt), ("null", null))}
    wanted = tiny.x0_from_eps(x, 300, eps["null"] + 3.0 * (eps["prompt"] - eps["null"]))
    assert torch.allclose(tiny.denoiser("a drum", guidance_scale=3.0)(x, 300), wanted, atol=1e-5)
    assert torch.equal(tiny.denoiser("a drum", guidance_scale=1.0)(x, 300), tiny.x0(x, 300, prompt))
    assert torch.equal(tiny.denoiser()(x, 300), tiny.x0(x, 300, null))
    pushed = tiny.denoiser("a drum", negative_prompt="hum", guidance_scale=3.0)(x, 300)
    assert not torch.allclose(pushed, wanted, atol=1e-3)


def test_null_condition_is_zeros_and_the_empty_text(tiny, monkeypatch):
    null = tiny.null_condition()
    assert null.generated.abs().sum() == 0 and null.generated.shape == (1, 8, 16)
    assert null.text.shape == (1, 1, 24) and null.mask.tolist() == [[1]]
    # Once on disk, no text encoder is asked again.
    again = tiny_backbone()
    monkeypatch.setattr(again.parts, "encode_empty", lambda: pytest.fail("a text encoder was loaded"))
    assert torch.equal(again.null_condition().text, null.text)
    stock = tiny_backbone(null="stock").null_condition()
    assert stock.generated.abs().sum() > 0


def test_digests_name_what_differs():
    a, b, heads = tiny_backbone(0), tiny_backbone(1), tiny_backbone(0, heads="original")
    assert a.digest == tiny_backbone(0).digest and a.latent_digest == tiny_backbone(0).latent_digest
    assert a.digest != b.digest and a.latent_digest != b.latent_digest
    assert a.latent_digest == heads.latent_digest and a.digest != heads.digest


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_near(tiny, dtype):
    half = tiny_backbone(dtype=dtype)
    assert next(half.unet.parameters()).dtype == getattr(torch, dtype)
    assert next(half.vae.parameters()).dtype == torch.float32
    x = torch.randn(1, 8, 4, 16)
    exact = tiny.eps(x, 500, tiny.null_condition())
    # A random network is rougher than a trained one: up to 0.17 over 20 inputs in bfloat16; unrelated outputs give 1.4.
    assert (half.eps(x, 500, half.null_condition()) - exact).norm() / exact.norm() < 0.4


def test_nan_is_not_passed_on():
    broken = tiny_backbone()
    with torch.no_grad():
        next(broken.vocoder.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="vocoder gave NaN"):
        broken.vocode(torch.zeros(1, 1, 4, 64))


def test_bad_names_and_options(tmp_path):
    with pytest.raises(UserError, match="neither a folder nor a hub name"):
        load("no/such/folder")
    with pytest.raises(UserError, match="could not be had from the hub"):
        load("nobody/nothing")
    with pytest.raises(UserError, match="dtype 'float8' is not known"):
        load("tiny", dtype="float8")
    with pytest.raises(UserError, match=r"vae/config.json is missing"):
        load(tmp_path)
    with pytest.raises(ValueError, match="multiple of 4"):
        load("tiny").posterior(torch.zeros(1, 1, 5, 64))


def test_foreign_checkpoints_are_refused_by_what_differs(tmp_path):
    for part, file in (("vae", "config"), ("unet", "config"), ("vocoder", "config"), ("scheduler", "scheduler_config")):
        (tmp_path / part).mkdir()
        config = {"_class_name": "UNet2DConditionModel" if part == "unet" else "AutoencoderKL"}
        (tmp_path / part / f"{file}.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="unet class is UNet2DConditionModel, expected AudioLDM2UNet2DConditionModel"):
        load(tmp_path)


def test_nan_in_a_decoder_that_is_differentiated_is_named_after_the_loop():
    broken = tiny_backbone()
    with torch.no_grad():
        next(broken.vae.decoder.parameters()).fill_(float("nan"))
    broken.decode(torch.zeros(1, 8, 4, 16).requires_grad_())
    with pytest.raises(UserError, match="VAE decoder gave NaN"):
        broken.check()
    broken.check()


def test_vae_and_vocoder_are_the_libraries_to_the_bit():
    from diffusers import AutoencoderKL
    from transformers import SpeechT5HifiGan

    backbone, mel = load("checkpoints/pocket"), torch.randn(1, 1, 24, 64, generator=torch.Generator().manual_seed(0))
    path = resolve_shipped("checkpoints/pocket")
    vae = AutoencoderKL.from_pretrained(path / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    vae = vae.to(memory_format=torch.channels_last).eval()
    expected = vae.encode(mel).latent_dist
    assert all(torch.equal(a, b) for a, b in zip(backbone.posterior(mel), (expected.mean, expected.std), strict=True))
    z = backbone.encode(mel)
    assert torch.equal(backbone.decode(z), vae.decode(z / backbone.scaling_factor).sample)
    vocoder = SpeechT5HifiGan.from_pretrained(path / "vocoder", dtype=torch.float32).eval()
    assert torch.equal(backbone.parts.make("vocoder").eval()(mel[:, 0]), vocoder(mel[:, 0]))


def test_weights_of_another_network_are_refused(tmp_path):
    shutil.copytree(resolve_shipped("checkpoints/pocket"), tmp_path / "other")
    config = json.loads((tmp_path / "other" / "vae" / "config.json").read_text())
    (tmp_path / "other" / "vae" / "config.json").write_text(json.dumps(config | {"mid_block_add_attention": False}))
    with pytest.raises(UserError, match=r"safetensors does not fit config.json: Unexpected key"):
        _ = load(tmp_path / "other").vae


def test_reconstruction_needs_none_of_the_slow_libraries(tmp_path):
    slow = ("diffusers", "transformers", "librosa", "numba", "scipy", "lightning", "torchaudio", "torch._dynamo")
    command = ["reconstruct", str(EXAMPLES / "bird.flac"), "-o", str(tmp_path / "a.wav")]
    code = f"import sys; from ddcm.cli.main import main; main({command!r})"
    code += f"; print([name for name in {slow!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=EXAMPLES.parent, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and (tmp_path / "a.wav").exists()
