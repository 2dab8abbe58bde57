"""AudioLDM2's vocoder (HiFi-GAN) as 2-D convolutions over images of height 1, channels last.

Sums and weights are the same. PyTorch has no channels-last layout for 1-D convolutions, so it rearranges their tensors
before and after every layer. ``python -m benchmarks.parts`` measures the difference.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from ddcm.runtime.memory import trim_heap

LARGE = 1 << 23  # activation bytes above which the heap is trimmed


class HifiGan2d(nn.Module):
    """A ``SpeechT5HifiGan`` of transformers with its layers reshaped. mel (B, T, M) -> audio (B, samples): hop T
    samples and a tail, as the original."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, vocoder: Any):
        super().__init__()
        self.slope, self.kernels = vocoder.config.leaky_relu_slope, vocoder.num_kernels
        self.normalise = vocoder.config.normalize_before
        self.register_buffer("mean", vocoder.mean)
        self.register_buffer("scale", vocoder.scale)
        self.pre, self.post = _flat(vocoder.conv_pre), _flat(vocoder.conv_post)
        self.ups = nn.ModuleList(map(_flat, vocoder.upsampler))
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.ModuleList(map(_flat, pair)) for pair in zip(block.convs1, block.convs2, strict=True))
            for block in vocoder.resblocks
        )

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        if self.normalise:
            mel = (mel - self.mean) / self.scale
        x = mel.transpose(1, 2)[:, :, None].contiguous(memory_format=torch.channels_last)  # [B, M, 1, T]
        x = self.pre(x)
        for number, up in enumerate(self.ups):
            x = up(functional.leaky_relu(x, self.slope))
            blocks = self.blocks[number * self.kernels : (number + 1) * self.kernels]
            total: torch.Tensor | None = None
            for block in cast(Iterable[nn.ModuleList], blocks):
                if x.device.type == "cpu" and x.nbytes >= LARGE:
                    trim_heap()  # 0.7 GB less at AudioLDM2's size, at no measurable cost
                y = self._residual(block, x)
                total = y if total is None else total.add_(y)
            assert total is not None, "kernels is at least 1"
            x = total.div_(self.kernels)
        return torch.tanh(self.post(functional.leaky_relu(x)))[:, 0, 0]  # torch's default slope, as in the original

    def _residual(self, block: nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
        for first, second in cast(Iterable[tuple[nn.Module, nn.Module]], block):
            y = first(functional.leaky_relu(x, self.slope))
            x = second(functional.leaky_relu_(y, self.slope)).add_(x)
        return x


def _flat(conv: nn.Conv1d | nn.ConvTranspose1d) -> nn.Conv2d | nn.ConvTranspose2d:
    """A 1-D convolution as a 2-D one over (1, T), with the same weights in channels-last order."""
    kind: Any = nn.ConvTranspose2d if isinstance(conv, nn.ConvTranspose1d) else nn.Conv2d
    flat = kind(
        conv.in_channels, conv.out_channels, (1, *conv.kernel_size), stride=(1, *conv.stride),
        padding=(0, *conv.padding), dilation=(1, *conv.dilation), device="meta",
    )  # fmt: skip
    weight = conv.weight.detach()[:, :, None].contiguous(memory_format=torch.channels_last)
    flat.weight, flat.bias = nn.Parameter(weight, requires_grad=False), conv.bias
    return flat
