"""The forward pass of AudioLDM2's UNet on the weights of diffusers' module: the same sums with less work.

- What a cross-attention makes of its condition does not depend on the latent. Keys and values are computed once for a
  condition. Where all keys are equal, the weights of the softmax add up to one over the same value: the attention is a
  constant, whatever the query. That is so under the trained null condition (eight zeros, and one token of text).
- On a CPU in channels-last order, products of matrices are oneDNN's. torch's own choice in float32 is MKL, which needs
  twice the time on processors of other makers. Convolutions of small images are such products, too.
- Deep layers may be left out: DeepCache (arXiv 2312.00858), see ``UNetForward.__call__``.

``python -m benchmarks.parts`` and ``python -m benchmarks.stock`` measure it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from ddcm.backbone.base import Condition
from ddcm.errors import UserError

SMALL_IMAGE = 256  # pixels; oneDNN's convolutions of fewer are slower than one product of matrices
LONG, BLOCK, FEW_THREADS = 256, 512, 4
"""Attention to as many keys is faster by products, of blocks of queries: there oneDNN is faster than torch's fused
attention, which in turn uses many threads better."""
EXPECTED = {
    "act_fn": "silu", "resnet_time_scale_shift": "default", "class_embed_type": None, "time_embedding_act_fn": None,
    "upcast_attention": False, "only_cross_attention": False, "mid_block_scale_factor": 1,
    "downsample_padding": 1,
}  # fmt: skip
"""settings that diffusers knows more values of, and no AudioLDM2 uses"""
ONEDNN = {torch.float32} if torch.backends.mkldnn.is_available() else set()
if ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    ONEDNN.add(torch.bfloat16)


class KeysValues(NamedTuple):
    """A condition as a cross-attention reads it, for R rows."""

    keys: torch.Tensor  # (R, heads, length, width)
    values: torch.Tensor  # (R, heads, length, width)
    bias: torch.Tensor | None = None  # (R, 1, 1, length), added to the scores


Segment = tuple[int, int, KeysValues | torch.Tensor]  # rows from, to; a tensor (rows, 1, channels) is a constant
Context = Sequence[Sequence[Segment]]  # the segments of each cross-attention, in the order of the forward pass


@dataclass(frozen=True)
class Layer:
    """A residual block, the transformers behind it, and a change of resolution."""

    resnet: Any = None
    transformers: tuple[tuple[Any, int | None], ...] = ()  # each with its source: 0 is GPT-2's, 1 T5's, None itself
    resample: Any = None

    @property
    def blocks(self) -> list[tuple[Any, int]]:
        """(block, source) of each cross-attention"""
        pairs = [(transformer.transformer_blocks, source) for transformer, source in self.transformers]
        return [(block, source) for blocks, source in pairs if source is not None for block in blocks]


class UNetForward:
    """The forward pass of ``unet``, an ``AudioLDM2UNet2DConditionModel``, in place of its own. Raises UserError: a
    setting that no AudioLDM2 has."""

    def __init__(self, unet: Any):
        for name, value in EXPECTED.items():
            if unet.config.get(name, value) != value:
                raise UserError(f"no AudioLDM2 backbone: unet {name} is {unet.config[name]}, expected {value}")
        self._unet = unet
        self._down = [layer for block in unet.down_blocks for layer in _flatten(block, block.downsamplers)]
        self._middle = _flatten(unet.mid_block)
        self._up: list[Layer] = []
        for block in unet.up_blocks:
            *layers, last = _flatten(block)
            self._up += [*layers, replace(last, resample=(block.upsamplers or [None])[0])]

    def __call__(
        self, x: torch.Tensor, t: torch.Tensor, context: Context, rows: int = 1, cut: int = 0,
        deep: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:  # fmt: skip
        """The noise in x (B, C, L, F) at timesteps t (B,), and the features at the cut.

        Args:
            context: what ``read_condition`` gave for ``rows`` conditions; each stands for B / rows of x.
            cut: how many skip connections lie above the cut, from the input on; 0 for no cut.
            deep: features at the cut of an earlier call with the same context. The layers below are then left out.
        """
        unet = self._unet
        emb = functional.silu(unet.time_embedding(unet.time_proj(t).to(x.dtype)))
        x = unet.conv_in(x)
        skips, down, up, used = [x], self._down, self._up, 0
        if deep is not None:
            down, up = down[: cut - 1], up[-cut:]

        def run(layer: Layer, x: torch.Tensor) -> torch.Tensor:
            nonlocal used
            x = _run(layer, x, emb, context[used:], rows)
            used += len(layer.blocks)
            return x

        for layer in down:
            x = convolve(layer.resample.conv, x) if layer.resnet is None else run(layer, x)
            skips.append(x)
        if deep is None:
            for layer in self._middle:
                x = run(layer, x)
        else:
            x, used = deep, len(context) - sum(len(layer.blocks) for layer in up)
        for layer in up:
            if len(skips) == cut:
                deep = x
            x = run(layer, torch.cat([x, skips.pop()], dim=1))
            if layer.resample is not None:
                x = functional.interpolate(x, size=skips[-1].shape[2:], mode="nearest")
                x = convolve(layer.resample.conv, x)
        return unet.conv_out(_activate(unet.conv_norm_out, x).contiguous()), deep

    def read_condition(self, condition: Condition, dtype: torch.dtype) -> Context:
        """What the cross-attentions need of a condition; it is the same at all timesteps."""
        bias = ((1 - condition.mask.to(dtype)) * -10000.0)[:, None, None]  # as diffusers masks
        states, biases = (condition.generated.to(dtype), condition.text.to(dtype)), (None, bias)
        return [
            _read(block.attn2, states[source], biases[source], [row[source] for row in condition.equal_keys])
            for layer in (*self._down, *self._middle, *self._up)
            for block, source in layer.blocks
        ]


def _flatten(block: Any, resamplers: Any = None) -> list[Layer]:
    attentions, dims = getattr(block, "attentions", ()), getattr(block, "cross_attention_dim", ())
    # diffusers gives the first two of a layer's transformers GPT-2's states, and the others T5's.
    sources = [None if dim is None else int(number > 1) for number, dim in enumerate(dims)]
    each = len(dims)
    layers = [
        Layer(resnet, tuple(zip(attentions[i * each : (i + 1) * each], sources, strict=False)))
        for i, resnet in enumerate(block.resnets)
    ]
    return [*layers, *(Layer(resample=resampler) for resampler in resamplers or ())]


def _run(layer: Layer, x: torch.Tensor, emb: torch.Tensor, context: Context, rows: int) -> torch.Tensor:
    resnet, used = layer.resnet, 0
    h = convolve(resnet.conv1, _activate(resnet.norm1, x))
    h = h + multiply(resnet.time_emb_proj, emb)[:, :, None, None]
    h = convolve(resnet.conv2, _activate(resnet.norm2, h))
    x = h + (x if resnet.conv_shortcut is None else convolve(resnet.conv_shortcut, x))
    for transformer, source in layer.transformers:
        tokens = normalise(transformer.norm, x).permute(0, 2, 3, 1)
        shape = tokens.shape
        tokens = multiply(transformer.proj_in, tokens.flatten(1, 2))  # a convolution of one pixel
        for block in transformer.transformer_blocks:
            tokens = tokens + _attend(block.attn1, block.norm1(tokens))
            if source is None:
                tokens = tokens + _attend(block.attn2, block.norm2(tokens))
            else:
                tokens = _attend_condition(block, tokens, context[used], rows)
                used += 1
            tokens = tokens + _feed_forward(block.ff.net, block.norm3(tokens))
        x = x + multiply(transformer.proj_out, tokens).view(shape).permute(0, 3, 1, 2)
    return x


def normalise(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """A group norm. In channels-last order torch takes the variance from sums of squares, which is exact only for a
    mean of about zero."""
    if _has_onednn(x) and x.dtype == torch.float32:
        means = x.mean((2, 3)).unflatten(1, (norm.num_groups, -1)).mean(-1)
        x = x - means.repeat_interleave(x.shape[1] // norm.num_groups, 1)[:, :, None, None]
    return norm(x)


def _activate(norm: Any, x: torch.Tensor) -> torch.Tensor:
    return functional.silu(normalise(norm, x), inplace=not x.requires_grad)


def _feed_forward(net: Any, x: torch.Tensor) -> torch.Tensor:
    """GEGLU (arXiv 2002.05202): half of the channels are gates of the others."""
    weight, bias = net[0].proj.weight, net[0].proj.bias
    if not _has_onednn(x):
        hidden, gate = functional.linear(x, weight, bias).chunk(2, dim=-1)
        return functional.linear(hidden * functional.gelu(gate), net[2].weight, net[2].bias)
    half = len(weight) // 2  # halves apart: the activation is then a part of the product, and nothing is copied
    gate = _linear(x, weight[half:], bias[half:], "gelu")
    return multiply(net[2], gate.mul_(_linear(x, weight[:half], bias[:half])))


def _heads(attention: Any, x: torch.Tensor) -> torch.Tensor:
    """(B, length, channels) -> (B, heads, length, width)"""
    return x.unflatten(-1, (attention.heads, -1)).transpose(1, 2)


def _attend(attention: Any, x: torch.Tensor, to: KeysValues | None = None) -> torch.Tensor:
    query = _heads(attention, multiply(attention.to_q, x))
    if to is None:
        to = KeysValues(_heads(attention, multiply(attention.to_k, x)), _heads(attention, multiply(attention.to_v, x)))
    if _has_onednn(x) and to.bias is None and to.keys.shape[2] >= LONG and torch.get_num_threads() <= FEW_THREADS:
        return multiply(attention.to_out[0], _attend_by_products(query, to).flatten(2))
    bias = None if to.bias is None else to.bias.expand(-1, 1, query.shape[2], -1)
    out = functional.scaled_dot_product_attention(query, to.keys, to.values, bias)
    return multiply(attention.to_out[0], out.transpose(1, 2).flatten(2))


def _attend_by_products(query: torch.Tensor, to: KeysValues) -> torch.Tensor:
    """(B, length, heads, width): attention head by head. Scores of a block of queries stay in the cache."""
    query, keys, values = query.mul(query.shape[-1] ** -0.5), to.keys.contiguous(), to.values.mT.contiguous()
    out = query.new_empty(len(query), query.shape[2], query.shape[1], query.shape[3])
    for row, head in product(*map(range, query.shape[:2])):
        for start in range(0, query.shape[2], BLOCK):
            block = slice(start, start + BLOCK)
            weights = _linear(query[row, head, block].contiguous(), keys[row, head], None).softmax(-1)
            out[row, block, head] = _linear(weights, values[row, head], None)
    return out


def _read(attention: Any, states: torch.Tensor, bias: torch.Tensor | None, equal: Sequence[bool]) -> list[Segment]:
    """Neighbouring rows of one kind share a segment."""
    segments: list[Segment] = []
    for is_constant, group in groupby(range(len(equal)), key=lambda row: equal[row]):
        numbers = list(group)
        rows = slice(numbers[0], numbers[-1] + 1)
        values = multiply(attention.to_v, states[rows])
        if is_constant:
            segments.append((rows.start, rows.stop, multiply(attention.to_out[0], values[:, :1])))
        else:
            keys = _heads(attention, multiply(attention.to_k, states[rows]))
            segment = KeysValues(keys, _heads(attention, values), None if bias is None else bias[rows])
            segments.append((rows.start, rows.stop, segment))
    return segments


def _attend_condition(block: Any, x: torch.Tensor, segments: Sequence[Segment], rows: int) -> torch.Tensor:
    """x (B, length, channels) and what each row adds to its share of the batch."""
    each, results = len(x) // rows, []
    for start, stop, value in segments:
        part = x if len(segments) == 1 else x[start * each : stop * each]
        if isinstance(value, torch.Tensor):
            added = value.repeat_interleave(each, 0) if stop - start > 1 else value
        else:
            keys, values = (x.repeat_interleave(each, 0) for x in value[:2])
            bias = None if value.bias is None else value.bias.repeat_interleave(each, 0)
            added = _attend(block.attn2, block.norm2(part), KeysValues(keys, values, bias))
        results.append(part + added)
    return results[0] if len(results) == 1 else torch.cat(results)


def _has_onednn(x: torch.Tensor) -> bool:
    """Whether oneDNN's products serve x: they have no gradient, and a compiler has its own."""
    return x.device.type == "cpu" and x.dtype in ONEDNN and not (x.requires_grad or torch.compiler.is_compiling())


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, then: str = "none") -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "none" if then == "gelu" else "")


def multiply(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """A linear layer, or a convolution of one pixel, on x (..., channels)."""
    weight = layer.weight.flatten(1)
    return _linear(x, weight, layer.bias) if _has_onednn(x) else functional.linear(x, weight, layer.bias)


def convolve(conv: Any, x: torch.Tensor) -> torch.Tensor:
    """A convolution of x (B, C, H, W)."""
    size, (height, width) = conv.kernel_size[0], x.shape[2:]
    is_product = size == 1 or (size == 3 and conv.stride == (1, 1) and height * width <= SMALL_IMAGE)
    if not is_product or not _has_onednn(x):
        return functional.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)
    pixels = x.permute(0, 2, 3, 1)
    if size == 3:
        padded = functional.pad(pixels, (0, 0, 1, 1, 1, 1))
        offsets = product(range(3), repeat=2)
        pixels = torch.cat([padded[:, i : i + height, j : j + width] for i, j in offsets], dim=-1)
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)
    return _linear(pixels, weight, conv.bias).permute(0, 3, 1, 2)
