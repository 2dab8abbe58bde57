"""The bytes of a ``.ddcm`` file -> audio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple

import torch

from ddcm.backbone import Backbone
from ddcm.codec import vq
from ddcm.codec.bitstream import BitReader
from ddcm.codec.format import Stream
from ddcm.codec.layout import BANDS, CHANNELS, Layout, window_bits
from ddcm.codec.sound import audio_pieces, mels
from ddcm.codec.trajectory import Sampler, decode_windows
from ddcm.errors import UserError
from ddcm.quantize.pretrained import Codebook


def said_in_file(backbone: Backbone) -> dict:
    """What a file says of the backbone that made it."""
    return dict(
        backbone=backbone.digest, mel=astuple(backbone.mel_spec), stock_null=backbone.null == "stock",
        dtype=str(backbone.dtype).removeprefix("torch."),
    )  # fmt: skip


def refuse_others(stream: Stream, backbone: Backbone, codebook: Codebook | None) -> None:
    """Refuse a backbone or a codebook that did not make the file: what came out would be noise.

    Raises:
        UserError: which one the file is of.
    """
    here, mine = said_in_file(backbone), backbone.latent_digest if stream.mode == "vq" else backbone.digest
    if stream.backbone != mine:
        for heads in ("hub", "original"):
            if stream.mode != "vq" and stream.backbone == backbone.digest_with(heads):
                raise UserError(f"made with --heads {heads}: decode it with the same")
        raise UserError(f"made with backbone {stream.backbone}; this is {backbone.name} ({mine}): give --backbone")
    if stream.mel != here["mel"]:
        raise UserError(f"made for another mel spectrogram than that of {backbone.name}")
    if stream.mode == "vq":
        if codebook is None:
            raise UserError(f"made with codebook {stream.codebook}: give it with --codebook")
        found = vq.digest(codebook.quantizer)
        if stream.codebook != found:
            raise UserError(f"made with codebook {stream.codebook}; this one is {found}: give --codebook")
        if stream.levels > codebook.quantizer.num_quantizers or stream.atoms != codebook.quantizer.codebook_size:
            raise UserError("the .ddcm file's header is damaged: its codebook has other levels or atoms")
    elif stream.stock_null != here["stock_null"]:
        raise UserError(f"made with --null {'stock' if stream.stock_null else 'trained'}: decode it with the same")
    elif stream.dtype != here["dtype"]:
        raise UserError(f"made with --dtype {stream.dtype}: decode it with the same")


def sampler_for(stream: Stream, backbone: Backbone) -> Sampler:
    denoise = backbone.denoiser(stream.prompt, "", stream.guidance / 256)
    return Sampler(denoise, backbone.alphas_cumprod, backbone.device, backbone.check)


def latents(
    stream: Stream, placed: Layout, backbone: Backbone, codebook: Codebook | None = None,
    on_call: Callable[[], None] | None = None,
) -> Iterator[torch.Tensor]:  # fmt: skip
    """z (1, C, L, F) of each window, in order.

    Raises:
        UserError: the payload holds what no encoder writes.
    """
    count = len(placed.starts)
    if stream.mode == "vq":
        assert codebook is not None, "refuse_others() comes first"
        shape = (1, CHANNELS, placed.latent_frames, BANDS)
        for levels in vq.decode(stream.payload, codebook.quantizer, count, (stream.levels, *shape[2:])):
            yield codebook.quantizer.decode(vq.from_levels(levels, codebook.quantizer, shape))
        return
    sampler, bits = sampler_for(stream, backbone), window_bits(stream)
    for first in range(0, count, stream.lanes):
        windows = range(first, min(first + stream.lanes, count))
        readers = [BitReader(stream.payload, window * bits) for window in windows]
        try:
            z = decode_windows(stream, placed, sampler, windows, readers, on_call)
        except ValueError as error:
            raise UserError(f"the .ddcm file is damaged: {error}") from error
        yield from z.split(1)


def sound(
    stream: Stream, placed: Layout, backbone: Backbone, windows: Iterator[torch.Tensor], vocoder: str = "refined",
    on_mel: Callable[[torch.Tensor], None] | None = None,
) -> Iterator[torch.Tensor]:  # fmt: skip
    """Windows of z -> pieces of audio (S,) at the recording's level, ``stream.samples`` in all."""

    def told() -> Iterator[torch.Tensor]:
        for mel in mels(backbone, windows, placed, stream.threads):
            if on_mel is not None:
                on_mel(mel)
            yield mel

    yield from audio_pieces(backbone, told(), stream, vocoder)
