"""Long recordings as overlapping windows, and windows back as one."""

from collections.abc import Iterable, Iterator, Sequence

import torch

from ddcm.audio.layout import OVERLAP, Layout
from ddcm.audio.level import Level
from ddcm.audio.mel import MelSpec, log_mel
from ddcm.audio.recording import SpooledAudio

PIECE = 1024  # frames that are vocoded at a time
SPECTRUM_REACH = 3  # frames on each side that a frame's spectrum reaches into
CONTEXT = 32  # frames on each side that a frame's samples can depend on (21 in AudioLDM2's vocoder)


def window_mel(
    audio: torch.Tensor | SpooledAudio, level: Level, layout: Layout, index: int, spec: MelSpec
) -> torch.Tensor:
    """mel (1, 1, size, M) of one window of audio (S,): the same as of the spectrogram of the whole recording. The
    recording is padded with silence to the layout's length. A zero in the log-mel would be louder than most music."""
    start = layout.starts[index]
    left, right = max(0, start - SPECTRUM_REACH), min(layout.total, start + layout.size + SPECTRUM_REACH)
    piece = level.apply(audio[left * spec.hop : right * spec.hop])
    piece = torch.nn.functional.pad(piece, (0, (right - left) * spec.hop - len(piece)))
    return log_mel(piece[None], spec)[:, :, start - left : start - left + layout.size]


def cross_fade(windows: torch.Tensor, starts: Sequence[int], overlap: int | None = OVERLAP) -> torch.Tensor:
    """Windows (W, 1, T, M) -> (1, 1, n, M), cross-faded linearly where they overlap."""
    return torch.cat([*cross_fade_stream(windows.split(1), starts, overlap)], dim=2)


def cross_fade_stream(
    windows: Iterable[torch.Tensor], starts: Sequence[int], overlap: int | None = OVERLAP
) -> Iterator[torch.Tensor]:
    """Windows (1, 1, T, M) in order -> consecutive pieces (1, 1, n, M), cross-faded linearly. A piece is yielded as
    soon as no later window reaches it, so that little more than a window is in memory. ``starts`` are the windows'
    first frames, ``overlap`` the frames of a fade; None: all that two neighbours share."""
    ends: tuple[torch.Tensor, torch.Tensor] | None = None  # weighted overlap from earlier windows, and its weight sum
    for window, start, following in zip(windows, starts, [*starts[1:], None], strict=True):
        if len(starts) == 1:
            yield window
            return
        frames = window.shape[2]
        final = frames if following is None else following - start
        fade_out = overlap or frames - final or 1  # 1: no window follows
        fade_in = overlap or (1 if ends is None else len(ends[1]))
        index = torch.arange(frames, dtype=torch.float32)
        ramp = torch.minimum((index + 1) / (fade_in + 1), (frames - index) / (fade_out + 1)).clamp(max=1)
        ramp = ramp[:, None].to(window)
        faded, weights = window * ramp, ramp.clone()
        if ends is not None:
            faded[:, :, : len(ends[1])] += ends[0]
            weights[: len(ends[1])] += ends[1]
        yield faded[:, :, :final] / weights[:final]
        ends = faded[:, :, final:], weights[final:]


def count_pieces(frames: int) -> int:
    """How many pieces ``split_with_context`` makes of so many frames."""
    return max(0, frames - CONTEXT) // PIECE + 1


def split_with_context(mels: Iterable[torch.Tensor], hop: int) -> Iterator[tuple[torch.Tensor, slice]]:
    """Consecutive mels (1, 1, n, M) of any lengths -> mels with context on both sides, and their samples to keep."""
    buffer, context = None, 0  # context: frames of the buffer that are already done
    for mel in mels:
        buffer = mel if buffer is None else torch.cat([buffer, mel], dim=2)
        while buffer.shape[2] >= context + PIECE + CONTEXT:
            yield buffer[:, :, : context + PIECE + CONTEXT], slice(context * hop, (context + PIECE) * hop)
            buffer, context = buffer[:, :, context + PIECE - CONTEXT :], CONTEXT
    if buffer is not None and buffer.shape[2] > context:
        yield buffer, slice(context * hop, buffer.shape[2] * hop)
