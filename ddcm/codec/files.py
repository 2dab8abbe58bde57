"""``.ddcm`` files on disk: compress to one, decompress one piece by piece, find them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from ddcm.audio.files import LONGEST, audio_writer
from ddcm.backbone import Backbone
from ddcm.codec.decode import latents, refuse_others, sound
from ddcm.codec.format import Stream, read, unpack
from ddcm.codec.layout import Layout, verified
from ddcm.codec.schedule import expand
from ddcm.errors import UserError
from ddcm.quantize.pretrained import Codebook
from ddcm.runtime.files import write_atomically

OnStep = Callable[[int, int], None]


def find(inputs: Iterable[str | Path]) -> list[tuple[Path, Path]]:
    """``.ddcm`` files, sorted, each with its name relative to what was given, as of ``ddcm.audio.files.find_audio``."""
    found: list[tuple[Path, Path]] = []
    for given in map(Path, inputs):
        inside = [given]
        if given.is_dir():  # hidden ones are what a killed run left
            inside = sorted(p for p in given.rglob("*.ddcm") if p.is_file() and not p.name.startswith("."))
        if not inside:
            raise UserError(f"no .ddcm files in {given}")
        found += [(path, path.relative_to(given) if given.is_dir() else Path(given.name)) for path in inside]
    return found


def write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(data)


def opened(data: bytes, backbone: Backbone, codebook: Codebook | None) -> tuple[Stream, Layout]:
    """A file's bytes, checked before anything is computed from them.

    Raises:
        UserError: damaged, or of another version, backbone or codebook.
    """
    stream = unpack(data)
    placed = verified(stream)
    refuse_others(stream, backbone, codebook)
    return stream, placed


def decompress(
    source: Path, target: Path, backbone: Backbone, codebook: Codebook | None, vocoder: str, on_step: OnStep | None
) -> None:
    """A ``.ddcm`` file -> an audio file, written as it is decoded: memory does not grow with the length."""
    stream, placed = opened(read(source), backbone, codebook)
    windows = latents(stream, placed, backbone, codebook, _counter(stream, placed, on_step))
    with audio_writer(target, backbone.mel_spec.sample_rate) as write_piece:
        for piece in sound(stream, placed, backbone, windows, vocoder):
            write_piece(piece)


def decoded(
    data: bytes, backbone: Backbone, codebook: Codebook | None, vocoder: str, on_step: OnStep | None
) -> dict[str, Any]:
    """A file's bytes -> the fields of ``ddcm.pipeline.output.Output``, all in memory.

    Raises:
        UserError: as ``opened``; or so long that it has to be decoded to a file.
    """
    stream, placed = opened(data, backbone, codebook)
    if stream.samples > LONGEST:
        raise UserError(f"{stream.samples} samples are too many for memory; ddcm decompress writes them as they come")
    kept: list[torch.Tensor] = []
    pieces_of_mel: list[torch.Tensor] = []

    def windows():
        for z in latents(stream, placed, backbone, codebook, _counter(stream, placed, on_step)):
            kept.append(z.cpu())
            yield z

    audio = torch.cat(list(sound(stream, placed, backbone, windows(), vocoder, pieces_of_mel.append)))
    kbps = len(data) / 125 * stream.mel[0] / stream.samples
    notes = {"mode": stream.mode, "prompt": stream.prompt, "kbps": kbps, "backbone": backbone.name}
    mel = torch.cat(pieces_of_mel, dim=2)
    rate = backbone.mel_spec.sample_rate
    return dict(audio=audio, sample_rate=rate, mel=mel, latent=torch.cat(kept), notes=notes)


def _counter(stream: Stream, placed: Layout, on_step: OnStep | None) -> Callable[[], None] | None:
    """What is called after each UNet call, for progress."""
    if on_step is None or stream.schedule is None:
        return None
    calls, in_all = 0, len(expand(stream.schedule).timesteps) * -(-len(placed.starts) // stream.lanes)

    def on_call() -> None:
        nonlocal calls
        calls += 1
        on_step(calls, in_all)

    return on_call
