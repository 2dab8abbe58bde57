"""The latents of a recording -> the payload, and the payload -> the latents the encoder got."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from ddcm.codec import vq
from ddcm.codec.bitstream import BitReader, BitWriter
from ddcm.codec.header import BANDS, Header
from ddcm.codec.model import LatentDiffusion
from ddcm.codec.trajectory import decode_windows, encode_windows, fixed_arithmetic
from ddcm.errors import UserError
from ddcm.quantize.pretrained import Codebook
from ddcm.runtime.progress import OnStep, Progress

Targets = tuple[torch.Tensor, torch.Tensor]
"""z of windows, and the weight of each of its numbers, both (W, C, L, F)."""
ReadTargets = Callable[[Sequence[int]], Targets]
"""``read_targets(windows)``: the targets of windows by their numbers."""
OnLatent = Callable[[torch.Tensor], None]
"""Called with each window's z (1, C, L, F) as the decoder will get it."""


def encode_payload(
    header: Header, model: LatentDiffusion, codebook: Codebook | None, read_targets: ReadTargets, on_latent: OnLatent,
    on_step: OnStep | None = None,
) -> bytes:  # fmt: skip
    """Code window after window, ``header.batch_size`` at a time. Only those windows are in memory."""
    if header.mode == "vq":
        assert codebook is not None, "build_header() asks for it"
        return _encode_codes(header, codebook, read_targets, on_latent, on_step)
    writer, progress = BitWriter(), _count_calls(header, on_step)
    for windows in _split_into_batches(header):
        z = encode_windows(header, model, *read_targets(windows), windows, [writer] * len(windows), progress.step)
        for row in z.split(1):
            on_latent(row)
    return writer.getvalue()


def decode_payload(
    header: Header, payload: bytes, model: LatentDiffusion, codebook: Codebook | None, on_step: OnStep | None = None
) -> Iterator[torch.Tensor]:
    """z (1, C, L, F) of each window, in order.

    Raises:
        UserError: the payload holds what no encoder writes.
    """
    if header.mode == "vq":
        assert codebook is not None, "check_model() asks for it"
        yield from _decode_codes(header, payload, codebook, on_step)
        return
    bits, progress = header.window_bits, _count_calls(header, on_step)
    for windows in _split_into_batches(header):
        readers = [BitReader(payload, window * bits) for window in windows]
        try:
            z = decode_windows(header, model, windows, readers, progress.step)
        except ValueError as error:
            raise UserError(f"the .ddcm file is damaged: {error}") from error
        yield from z.split(1)


def _encode_codes(header: Header, codebook: Codebook, read_targets, on_latent: OnLatent, on_step) -> bytes:
    quantizer, encoder = codebook.quantizer, vq.Encoder(codebook.quantizer, header.levels, BANDS)
    windows = len(header.layout.starts)
    progress = Progress(on_step, windows)
    with fixed_arithmetic(header.threads):
        for window in range(windows):
            z, _ = read_targets([window])
            codes = vq.to_levels(quantizer.encode(z))[: header.levels]
            encoder.write(codes)
            on_latent(quantizer.decode(vq.from_levels(codes, quantizer)))
            progress.step()
    return encoder.getvalue()


def _decode_codes(header: Header, payload: bytes, codebook: Codebook, on_step) -> Iterator[torch.Tensor]:
    quantizer, (_, frames, bands) = codebook.quantizer, header.latent_shape
    windows = len(header.layout.starts)
    progress = Progress(on_step, windows)
    for codes in vq.decode(payload, quantizer, windows, (header.levels, frames, bands)):
        yield quantizer.decode(vq.from_levels(codes, quantizer))
        progress.step()


def _split_into_batches(header: Header) -> list[range]:
    windows, size = len(header.layout.starts), header.batch_size
    return [range(first, min(first + size, windows)) for first in range(0, windows, size)]


def _count_calls(header: Header, on_step: OnStep | None) -> Progress:
    return Progress(on_step, len(_split_into_batches(header)) * len(header.steps.timesteps))
