"""AudioLDM2's VAE, with the parameters' names and the arithmetic of diffusers' ``AutoencoderKL``.

diffusers takes seconds to import. What only encodes and decodes mels does not need it.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Autoencoder(nn.Module):
    """mel (B, 1, T, M) <-> z_raw (B, C, L, F); ``config`` is that of a diffusers folder."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        widths, latent, groups = config["block_out_channels"], config["latent_channels"], config["norm_num_groups"]
        layers, attends = config.get("layers_per_block", 1), config.get("mid_block_add_attention", True)
        self.encoder = _Half(config.get("in_channels", 1), 2 * latent, widths, groups, layers, attends, is_encoder=True)
        self.decoder = _Half(
            latent, config.get("out_channels", 1), widths[::-1], groups, layers + 1, attends, is_encoder=False
        )
        uses = config.get("use_quant_conv", True), config.get("use_post_quant_conv", True)
        self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1) if uses[0] else nn.Identity()
        self.post_quant_conv = nn.Conv2d(latent, latent, 1) if uses[1] else nn.Identity()

    def encode(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of z_raw."""
        mean, log_variance = self.quant_conv(self.encoder(mel)).chunk(2, dim=1)
        return mean, torch.exp(0.5 * log_variance.clamp(-30, 20))

    def decode(self, z_raw: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.post_quant_conv(z_raw))


class _Half(nn.Module):
    """An encoder or a decoder: levels of residual blocks, with a change of resolution behind all but the last."""

    def __init__(self, inputs: int, outputs: int, widths, groups: int, layers: int, attends: bool, is_encoder: bool):
        super().__init__()
        self.is_encoder = is_encoder
        self.conv_in = nn.Conv2d(inputs, widths[0], 3, padding=1)
        blocks = nn.ModuleList()
        for number, width in enumerate(widths):
            before = widths[max(number - 1, 0)]
            block: Any = nn.Module()
            block.resnets = nn.ModuleList(_Resnet(width if i else before, width, groups) for i in range(layers))
            if number + 1 < len(widths):
                resampler: Any = nn.Module()
                stride, padding = (2, 0) if is_encoder else (1, 1)
                resampler.conv = nn.Conv2d(width, width, 3, stride=stride, padding=padding)
                setattr(block, "downsamplers" if is_encoder else "upsamplers", nn.ModuleList([resampler]))
            blocks.append(block)
        setattr(self, "down_blocks" if is_encoder else "up_blocks", blocks)
        middle: Any = nn.Module()
        width = widths[-1] if is_encoder else widths[0]
        middle.attentions = nn.ModuleList([_Attention(width, groups)] if attends else [])
        middle.resnets = nn.ModuleList(_Resnet(width, width, groups) for _ in range(2))
        self.mid_block = middle
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], outputs, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        if not self.is_encoder:
            x = self._middle(x)
        blocks: Any = self.down_blocks if self.is_encoder else self.up_blocks
        for block in blocks:
            for resnet in block.resnets:
                x = resnet(x)
            for resampler in getattr(block, "downsamplers", ()):
                x = resampler.conv(functional.pad(x, (0, 1, 0, 1)))
            for resampler in getattr(block, "upsamplers", ()):
                x = resampler.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        if self.is_encoder:
            x = self._middle(x)
        return self.conv_out(functional.silu(self.conv_norm_out(x)))

    def _middle(self, x: torch.Tensor) -> torch.Tensor:
        x = self.mid_block.resnets[0](x)
        for attention in self.mid_block.attentions:
            x = attention(x)
        return self.mid_block.resnets[1](x)


class _Resnet(nn.Module):
    def __init__(self, inputs: int, outputs: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=1e-6)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(functional.silu(self.norm2(h)))
        return self.conv_shortcut(x) + h


class _Attention(nn.Module):
    """Of one head, over all cells."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = self.group_norm(x.flatten(2)).transpose(1, 2)
        heads = (layer(cells)[:, None] for layer in (self.to_q, self.to_k, self.to_v))
        out = self.to_out[0](functional.scaled_dot_product_attention(*heads)[:, 0])
        return out.transpose(-1, -2).reshape(x.shape) + x
