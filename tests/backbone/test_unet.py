"""The forward pass of our own against that of diffusers, on the tiny UNet."""

from dataclasses import replace

import pytest
import torch

from ddcm.backbone.base import FULL_CALLS, Condition
from ddcm.backbone.tiny import CONFIGS, RandomParts, tiny_backbone
from ddcm.backbone.unet import UNetForward, normalise
from ddcm.errors import UserError


@pytest.fixture(scope="module")
def stock():
    return RandomParts(CONFIGS, 0).make("unet").eval().requires_grad_(False)


def call_stock(unet, x, t: int, condition: Condition) -> torch.Tensor:
    each = len(x) // len(condition.mask)
    return unet(
        x, torch.full((len(x),), t),
        encoder_hidden_states=condition.generated.repeat_interleave(each, 0),
        encoder_hidden_states_1=condition.text.repeat_interleave(each, 0),
        encoder_attention_mask_1=condition.mask.repeat_interleave(each, 0), return_dict=False,
    )[0]  # fmt: skip


@pytest.mark.parametrize("frames", [8, 13, 256])
@pytest.mark.parametrize("which", ["null", "prompt", "null and prompt", "two prompts"])
def test_it_is_the_stock_unet(tiny, stock, which, frames):
    null, prompt, other = tiny.null_condition(), tiny.condition("rain"), tiny.condition("a long walk in the rain")
    conditions = {"null": [null], "prompt": [prompt], "null and prompt": [null, prompt], "two prompts": [prompt, other]}
    condition = Condition.stack(*conditions[which])
    x = torch.randn(2 * len(condition.mask), 8, frames, 16, generator=torch.Generator().manual_seed(0))
    expected = call_stock(stock, x, 500, condition)
    assert expected.std() > 0.1
    torch.testing.assert_close(tiny.eps(x, 500, condition), expected, atol=2e-5, rtol=0)


def test_under_the_null_condition_attention_is_a_constant(tiny):
    """Eight zeros and one token of text: the query makes no difference, so the constant is what attention computes."""
    null, x = tiny.null_condition(), torch.randn(1, 8, 12, 16)
    assert null.equal_keys == ((True, True),)
    context = tiny.unet.forward.read_condition(null, torch.float32)
    assert all(isinstance(value, torch.Tensor) for segments in context for _, _, value in segments)
    computed = tiny.eps(x, 500, replace(null, equal_keys=((False, False),)))
    torch.testing.assert_close(tiny.eps(x, 500, null), computed, atol=1e-5, rtol=0)
    # With padding, too: it is masked.
    torch.testing.assert_close(tiny.eps(x, 500, null.pad_text(5)), computed, atol=1e-5, rtol=0)


def test_an_attention_to_different_keys_is_no_constant(tiny):
    stock_null = tiny_backbone(null="stock").null_condition()
    assert stock_null.equal_keys == ((False, True),)  # GPT-2's eight states differ
    assert tiny.condition("rain").equal_keys == ((False, False),)


def test_a_condition_is_read_once(monkeypatch):
    backbone, calls = tiny_backbone(), []
    read = UNetForward.read_condition
    monkeypatch.setattr(UNetForward, "read_condition", lambda self, *args: calls.append(1) or read(self, *args))
    denoise = backbone.denoiser("rain", guidance_scale=2.0)
    for t in (900, 500, 100):
        denoise(torch.randn(1, 8, 8, 16), t)
    assert len(calls) == 1


def test_gradients_flow_to_the_input(tiny, stock):
    x, null = torch.randn(1, 8, 8, 16), tiny.null_condition()
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    tiny.eps(ours, 500, null).square().sum().backward()
    call_stock(stock, theirs, 500, null).square().sum().backward()
    assert theirs.grad.std() > 0.1
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


def test_a_large_mean_costs_no_accuracy():
    """torch's own group norm in channels-last order loses a hundred times as much."""
    norm = torch.nn.GroupNorm(4, 16)
    x = 10 + torch.randn(1, 16, 32, 8, generator=torch.Generator().manual_seed(0))
    exact = torch.nn.functional.group_norm(x.double(), 4)
    assert (normalise(norm, x.to(memory_format=torch.channels_last)) - exact).square().mean().sqrt() < 1e-6


def test_an_unknown_setting_is_refused():
    config = CONFIGS["unet"] | {"resnet_time_scale_shift": "scale_shift"}
    with pytest.raises(UserError, match="unet resnet_time_scale_shift is scale_shift, expected default"):
        UNetForward(RandomParts({"unet": config}, 0).make("unet"))


def test_a_cache_leaves_out_deep_layers_and_starts_anew_with_a_loop():
    backbone, deep_calls = tiny_backbone(), []
    backbone.unet.mid_block.resnets[0].norm1.register_forward_hook(lambda *_: deep_calls.append(1))
    x, timesteps = torch.randn(1, 8, 12, 16), range(900, 0, -60)
    plain, cached = backbone.denoiser(), backbone.denoiser(cache_interval=3)
    exact = [plain(x, t) for t in timesteps]
    deep_calls.clear()
    once = [cached(x, t) for t in timesteps]
    assert len(timesteps) == 15 and len(deep_calls) == FULL_CALLS + 1  # and the one of step 12
    same = [torch.equal(a, b) for a, b in zip(exact, once, strict=True)]
    assert same == [i < FULL_CALLS or i % 3 == 0 for i in range(15)]
    assert all(torch.equal(a, b) for a, b in zip(once, [cached(x, t) for t in timesteps], strict=True))


@pytest.mark.parametrize("cut", range(1, 8))
def test_features_of_the_same_call_change_nothing(tiny, cut):
    """Wherever the cut is: what lies above it gets what it would get."""
    forward, condition = tiny.unet.forward, Condition.stack(tiny.null_condition(), tiny.condition("rain"))
    x, t, context = torch.randn(2, 8, 13, 16), torch.full((2,), 300), forward.read_condition(condition, torch.float32)
    full, deep = forward(x, t, context, 2, cut)
    assert torch.equal(forward(x, t, context, 2, cut, deep)[0], full)
    assert not torch.equal(forward(x, t, context, 2, cut, deep + 1)[0], full)
