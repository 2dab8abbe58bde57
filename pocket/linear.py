"""A VAE begins as the best linear one: from random weights its norms and activations take hours to learn the same.

An ``AutoencoderKL`` has a chain of plain convolutions inside: what is left of it when residual branches give
nothing and the last norm and activation are passed over. ``encode`` and ``decode`` run that chain alone, which
trains at twice the speed and reaches in minutes what the whole network does not in an hour. ``unfold`` then sets the
whole network to the function that the chain has learned, as a start for what only the nonlinear parts can do.

Residual branches begin at nothing (Zhang et al. 2019, "Fixup Initialization", section 3). For the last norm and
activation, features come in pairs of both signs, since silu(x) - silu(-x) = x, and beside them stand two constants
that are large, so that the norm divides by nearly the same number whatever the features are.
"""

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import Decoder, DiagonalGaussianDistribution, Encoder

CONSTANT = 64.0  # times the root mean square of the features, which then are a thousandth of the norm's variance


def initialise(vae: AutoencoderKL) -> None:
    """Random weights whose chain keeps the variance, and that leave free what ``unfold`` will need."""
    for half in (vae.encoder, vae.decoder):
        for conv in (*_links(half), half.conv_out):
            torch.nn.init.xavier_normal_(conv.weight)
            torch.nn.init.zeros_(conv.bias)
        writer, (_, mirrored, constants) = _writer(half), _roles(half)
        for free in (mirrored, constants.flatten()):  # both sides zero: no gradient reaches either
            writer.weight.data[free] = 0
            half.conv_out.weight.data[:, free] = 0


def encode(vae: AutoencoderKL, mel: torch.Tensor) -> DiagonalGaussianDistribution:
    """Mel (B, 1, T, 64) -> latent distribution (B, 8, T/4, 16), by the chain alone."""
    return DiagonalGaussianDistribution(vae.quant_conv(_through(vae.encoder, mel)))


def decode(vae: AutoencoderKL, z: torch.Tensor) -> torch.Tensor:
    """Latent (B, 8, T/4, 16) -> mel (B, 1, T, 64), by the chain alone."""
    return _through(vae.decoder, vae.post_quant_conv(z))


@torch.no_grad()
def unfold(vae: AutoencoderKL, mel: torch.Tensor) -> None:
    """Make ``vae.encode`` and ``vae.decode`` do what the chain does; ``mel`` (B, 1, T, 64) tells how large the
    features are."""
    z = encode(vae, mel).mode()
    _unfold(vae.encoder, _before_end(vae.encoder, mel))
    _unfold(vae.decoder, _before_end(vae.decoder, vae.post_quant_conv(z)))


def _unfold(half: Encoder | Decoder, x: torch.Tensor) -> None:
    features, mirrored, constants = _roles(half)
    writer, norm, last = _writer(half), half.conv_norm_out, _resnets(half)[-1]
    writer.weight[mirrored], writer.bias[mirrored] = -writer.weight[features], -writer.bias[features]
    for resnet in _resnets(half):
        torch.nn.init.zeros_(resnet.conv2.weight)
        torch.nn.init.zeros_(resnet.conv2.bias)
    for attention in half.mid_block.attentions:
        torch.nn.init.zeros_(attention.to_out[0].weight)
        torch.nn.init.zeros_(attention.to_out[0].bias)
    size = x[:, features].float().square().mean((0, 2, 3)).sqrt().clamp_min(1e-6)
    constant = CONSTANT * size.square().mean().sqrt()
    last.conv2.bias[constants[:, 0]], last.conv2.bias[constants[:, 1]] = constant, -constant
    # Two constants of n channels are nearly all of the variance: c^2 * 2 / n.
    deviation = constant * (2 * norm.num_groups / norm.num_channels) ** 0.5
    norm.weight[features] = norm.weight[mirrored] = deviation / size
    half.conv_out.weight[:, features] *= size[:, None, None]
    half.conv_out.weight[:, mirrored] = -half.conv_out.weight[:, features]


def _roles(half: Encoder | Decoder) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Channels before the last norm: features, the same with the other sign, and (groups, 2) constants."""
    norm = half.conv_norm_out
    groups = torch.arange(norm.num_channels).view(norm.num_groups, -1)
    return groups[:, 0:-2:2].flatten(), groups[:, 1:-2:2].flatten(), groups[:, -2:]


def _blocks(half: Encoder | Decoder):
    return half.down_blocks if hasattr(half, "down_blocks") else half.up_blocks


def _resnets(half: Encoder | Decoder) -> list[torch.nn.Module]:
    """In the order in which a signal passes them."""
    ends, middle = [r for block in _blocks(half) for r in block.resnets], [*half.mid_block.resnets]
    return [*ends, *middle] if hasattr(half, "down_blocks") else [*middle, *ends]


def _steps(half: Encoder | Decoder):
    """The modules of the chain but the last."""
    yield half.conv_in
    for block in _blocks(half):
        yield from (resnet.conv_shortcut for resnet in block.resnets if resnet.conv_shortcut is not None)
        yield from getattr(block, "downsamplers", None) or getattr(block, "upsamplers", None) or ()


def _links(half: Encoder | Decoder) -> list[torch.nn.Conv2d]:
    return [getattr(step, "conv", step) for step in _steps(half)]


def _writer(half: Encoder | Decoder) -> torch.nn.Conv2d:
    """The convolution whose outputs the last norm sees."""
    return _links(half)[-1]


def _before_end(half: Encoder | Decoder, x: torch.Tensor) -> torch.Tensor:
    for step in _steps(half):
        x = step(x)
    return x


def _through(half: Encoder | Decoder, x: torch.Tensor) -> torch.Tensor:
    return half.conv_out(_before_end(half, x))
