"""AudioLDM2's vocoder (HiFi-GAN) as 2-D convolutions over images of height 1, channels last.

Sums and weights are the same. PyTorch has no channels-last layout for 1-D convolutions, so it rearranges their tensors
before and after every layer. ``python -m benchmarks.parts`` measures the difference.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from ddcm.runtime.memory import trim_heap

LARGE = 1 << 23  # activation bytes above which the heap is trimmed


class HifiGan(nn.Module):
    """The vocoder with the parameters' names of transformers' ``SpeechT5HifiGan``, which takes seconds to import;
    ``config`` is that of its folder. mel (B, T, M) -> audio (B, samples)."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.config = SimpleNamespace(**{"normalize_before": True, "leaky_relu_slope": 0.1} | config)
        kernels, dilations = self.config.resblock_kernel_sizes, self.config.resblock_dilation_sizes
        bands, channels, self.num_kernels = self.config.model_in_dim, self.config.upsample_initial_channel, len(kernels)
        self.conv_pre = nn.Conv1d(bands, channels, 7, padding=3)
        self.upsampler, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(self.config.upsample_rates, self.config.upsample_kernel_sizes, strict=True):
            up = nn.ConvTranspose1d(channels, channels // 2, kernel, stride=rate, padding=(kernel - rate) // 2)
            self.upsampler.append(up)
            channels //= 2
            for size, steps in zip(kernels, dilations, strict=True):
                block: Any = nn.Module()
                for name, dilated in (("convs1", steps), ("convs2", [1] * len(steps))):
                    convs = (nn.Conv1d(channels, channels, size, padding=size // 2 * d, dilation=d) for d in dilated)
                    setattr(block, name, nn.ModuleList(convs))
                self.resblocks.append(block)
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3)
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("scale", torch.ones(bands))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        slope, blocks = self.config.leaky_relu_slope, cast(Iterator[Any], iter(self.resblocks))
        x = self.conv_pre(((mel - self.mean) / self.scale if self.config.normalize_before else mel).transpose(1, 2))
        for up in self.upsampler:
            x, total = up(functional.leaky_relu(x, slope)), 0
            for block in islice(blocks, self.num_kernels):
                y = x
                for first, second in zip(block.convs1, block.convs2, strict=True):
                    h = first(functional.leaky_relu(y, slope))
                    y = second(functional.leaky_relu(h, slope)) + y
                total = total + y
            x = total / self.num_kernels
        return torch.tanh(self.conv_post(functional.leaky_relu(x)))[:, 0]


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
