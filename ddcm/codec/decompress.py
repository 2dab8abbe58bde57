"""The bytes of a ``.ddcm`` file -> audio: header, payload, mel, audio, a window at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from ddcm.audio.files import LONGEST
from ddcm.audio.level import Level
from ddcm.audio.refine import refine
from ddcm.audio.windows import count_pieces, cross_fade_stream, split_with_context
from ddcm.codec import hybrid
from ddcm.codec.coder import count_steps, decode_payload
from ddcm.codec.codes import vq
from ddcm.codec.format import unpack
from ddcm.codec.header import Header, shorten, validate
from ddcm.codec.model import LatentDiffusion, header_fields
from ddcm.codec.trajectory import fixed_arithmetic
from ddcm.errors import UserError
from ddcm.quantize.pretrained import Codebook
from ddcm.runtime.progress import OnStep, Progress


@dataclass(frozen=True)
class Decoded:
    """A decoded file. Tensors are on the CPU."""

    header: Header
    audio: torch.Tensor  # (S,) at the level of the recording
    mel: torch.Tensor  # (1, 1, T, M): the vocoder's input
    latent: torch.Tensor  # (W, C, L, F): z of each window


def decompress(
    data: bytes, model: LatentDiffusion, codebook: Codebook | None = None, vocoder: str = "refined",
    batch_size: int = 1, on_step: OnStep | None = None,
) -> Decoded:  # fmt: skip
    """Decode a whole file in memory. ``vocoder`` is ``refined`` or ``backbone``. Raises UserError: as ``open_stream``;
    or too long for memory."""
    header, payload = open_stream(data, model, codebook)
    if header.samples > LONGEST:
        raise UserError(f"{header.samples} samples are too many for memory; ddcm decompress writes them as they come")
    progress = _start_progress(header, batch_size, on_step)
    latents = list(decode_payload(header, payload, model, codebook, batch_size, progress))
    mels = list(_decode_mels(header, model, latents, progress))
    audio = torch.cat(list(_vocode(header, model, mels, vocoder, progress)))
    return Decoded(header, audio, torch.cat(mels, dim=2), torch.cat(latents).cpu())


def decompress_pieces(
    data: bytes, model: LatentDiffusion, codebook: Codebook | None = None, vocoder: str = "refined",
    batch_size: int = 1, on_step: OnStep | None = None,
) -> Iterator[torch.Tensor]:  # fmt: skip
    """Decode a file of any length in constant memory: pieces of audio (S,), in order. The file is checked at once, and
    decoded as the pieces are read. Errors are those of ``open_stream``."""
    header, payload = open_stream(data, model, codebook)
    progress = _start_progress(header, batch_size, on_step)
    windows = decode_payload(header, payload, model, codebook, batch_size, progress)
    return _vocode(header, model, _decode_mels(header, model, windows, progress), vocoder, progress)


def _start_progress(header: Header, batch_size: int, on_step: OnStep | None) -> Progress:
    """Steps of decoding, windows of the VAE, and pieces of audio."""
    layout = header.layout
    return Progress(on_step, count_steps(header, batch_size) + len(layout.starts) + count_pieces(layout.total))


def open_stream(data: bytes, model: LatentDiffusion, codebook: Codebook | None) -> tuple[Header, bytes]:
    """Header and payload of a file, checked before anything is computed from them. With another model or codebook than
    those that made the file, the result would be noise. Raises UserError: damaged, or of another version, model or
    codebook; names what the file was made with."""
    header, payload = unpack(data)
    validate(header, payload)
    fields, is_vq, is_hybrid = header_fields(model), header.mode == "vq", header.mode == "hybrid"
    digest = shorten(model.latent_digest) if is_vq else fields["backbone"]
    if header.backbone != digest:
        for heads in () if is_vq else ("hub", "original"):
            if header.backbone == shorten(model.digest_with(heads)):
                raise UserError(f"made with --heads {heads}: decode it with the same")
        raise UserError(f"made with backbone {header.backbone}; this is {model.name} ({digest}): give --backbone")
    if header.mel != fields["mel"]:
        raise UserError(f"made for another mel spectrogram than that of {model.name}")
    if header.codebook:
        if codebook is None:
            raise UserError(f"made with codebook {header.codebook}: give it with --codebook")
        digest = shorten(vq.digest(codebook.quantizer))
        if header.codebook != digest:
            raise UserError(f"made with codebook {header.codebook}; this one is {digest}: give --codebook")
        has_levels = header.first_level + header.levels <= codebook.quantizer.num_quantizers
        if not has_levels or header.atoms != codebook.quantizer.codebook_size:
            raise UserError("the .ddcm file's header is damaged: its codebook has other levels or atoms")
        if is_hybrid:
            hybrid.require_residual(codebook)
    if is_vq:
        return header, payload
    if header.stock_null != fields["stock_null"]:
        raise UserError(f"made with --null {'stock' if header.stock_null else 'trained'}: decode it with the same")
    if header.dtype != fields["dtype"] and "bfloat16" in (header.dtype, fields["dtype"]):
        # Measured: 1.2 dB of the mel between them, where float16 and float32 are 0.01 dB apart.
        raise UserError(f"made with --dtype {header.dtype}; in {fields['dtype']} it is another sound: give the same")
    return header, payload


def _decode_mels(
    header: Header, model: LatentDiffusion, windows: Iterable[torch.Tensor], progress: Progress
) -> Iterator[torch.Tensor]:
    """Windows of z (1, C, L, F) -> consecutive pieces of mel (1, 1, T, M), cross-faded over all that windows share. The
    VAE decodes one window at a time."""

    @fixed_arithmetic()
    def decode(z: torch.Tensor) -> torch.Tensor:
        mel = model.decode(z).cpu()
        progress.step()
        return mel

    return cross_fade_stream(map(decode, windows), header.layout.starts, overlap=None)


def _vocode(
    header: Header, model: LatentDiffusion, mels: Iterable[torch.Tensor], vocoder: str, progress: Progress
) -> Iterator[torch.Tensor]:
    """Consecutive pieces of mel -> pieces of audio (S,), ``header.samples`` in all, at the level of the recording. The
    vocoder gets pieces with context, which is exact for a convolutional one."""
    remaining, level = header.samples, Level(header.mean, 2 ** (header.gain / 256))
    for mel, inner in split_with_context(mels, model.mel_spec.hop):
        with fixed_arithmetic():
            audio = model.vocode(mel)[0].cpu()
            if vocoder == "refined":
                audio = refine(audio, mel, model.mel_spec)
        progress.step()
        audio = audio[inner][:remaining]
        remaining -= len(audio)
        if len(audio):
            yield level.undo(audio)
