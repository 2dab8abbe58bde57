"""The latents of a recording -> the payload, and the payload -> the latents the encoder got."""

from collections.abc import Callable, Iterator, Sequence

import torch

from ddcm.codec import hybrid
from ddcm.codec.bitstream import BitReader, BitWriter
from ddcm.codec.codes import vq
from ddcm.codec.codes.choice import CodeSearch, choose_codes
from ddcm.codec.header import BANDS, Header
from ddcm.codec.model import LatentDiffusion
from ddcm.codec.targets import Targets
from ddcm.codec.trajectory import decode_windows, encode_windows, fixed_arithmetic
from ddcm.errors import UserError
from ddcm.quantize.pretrained import Codebook
from ddcm.runtime.progress import Progress

ReadTargets = Callable[[Sequence[int]], Targets]  # ``read_targets(windows)``: the targets of windows by their numbers.
OnLatent = Callable[[torch.Tensor], None]  # Called with each window's z (1, C, L, F) as the decoder will get it.


def encode_payload(
    header: Header, model: LatentDiffusion, codebook: Codebook | None, read_targets: ReadTargets, on_latent: OnLatent,
    batch_size: int, progress: Progress, rate_weight: float = 1.0,
) -> tuple[Header, bytes]:  # fmt: skip
    """Code window after window, ``batch_size`` at a time. Only those windows are in memory. The header comes back with
    what the encoder chose."""
    if header.mode == "vq":
        assert codebook is not None, "build_header() asks for it"
        quantizer, digest = codebook.quantizer, model.latent_digest
        encoder = vq.Encoder(quantizer, header.levels, BANDS, header.code_model, digest)
        how = CodeSearch(rate_weight, latent_digest=digest)
        with fixed_arithmetic():
            for window in range(len(header.layout.starts)):
                codes = choose_codes(model, read_targets([window]), quantizer, header.levels, how=how)
                encoder.write(codes)
                on_latent(vq.decode_codes(codes, quantizer))
                progress.step()
        return header, encoder.getvalue()
    writer, codes_writer = BitWriter(), None
    if header.mode == "hybrid":
        assert codebook is not None, "build_header() asks for it"
        codes_writer = hybrid.CodesWriter(header, model, codebook, rate_weight)
    for windows in split_windows(header, batch_size):
        targets = read_targets(windows)
        z = encode_windows(header, model, targets, windows, [writer] * len(windows), progress.step)
        for row, target in zip(z.split(1), targets.split(), strict=True):
            on_latent(row if codes_writer is None else codes_writer.write(row, target))
    if codes_writer is None:
        return header, writer.getvalue()
    return codes_writer.header, writer.getvalue() + codes_writer.getvalue()


def decode_payload(
    header: Header, payload: bytes, model: LatentDiffusion, codebook: Codebook | None, batch_size: int = 1,
    progress: Progress | None = None,
) -> Iterator[torch.Tensor]:  # fmt: skip
    """z (1, C, L, F) of each window, in order. Any ``batch_size`` will do: results differ in the last bits alone.
    Raises UserError: the payload holds what no encoder writes."""
    progress = progress or Progress(None, 0)
    additions: Iterator[torch.Tensor] | None = None
    if header.mode == "hybrid":
        assert codebook is not None, "open_stream() asks for it"
        additions = hybrid.decode(header, payload[header.trajectory_bytes :], codebook)
    if header.mode == "vq":
        assert codebook is not None, "open_stream() asks for it"
        quantizer, shape = codebook.quantizer, (header.levels, *header.latent_shape[1:])
        count, revision = len(header.layout.starts), header.code_model
        for codes in vq.decode(payload, quantizer, count, shape, revision, model.latent_digest):
            yield vq.decode_codes(codes, quantizer)
            progress.step()
        return
    offsets = header.offsets
    for windows in split_windows(header, batch_size):
        readers = [BitReader(payload, offsets[window]) for window in windows]
        try:
            z = decode_windows(header, model, windows, readers, progress.step)
        except ValueError as error:
            raise UserError(f"the .ddcm file is damaged: {error}") from error
        for row in z.split(1):
            yield row if additions is None else row + next(additions).to(row.device)


def split_windows(header: Header, batch_size: int) -> list[range]:
    """Numbers of the windows of each UNet call."""
    windows = len(header.layout.starts)
    return [range(first, min(first + batch_size, windows)) for first in range(0, windows, batch_size)]


def count_steps(header: Header, batch_size: int) -> int:
    """Steps of coding or decoding: UNet calls, or windows of a vq file."""
    if header.mode == "vq":
        return len(header.layout.starts)
    return len(split_windows(header, batch_size)) * len(header.steps.timesteps)
