"""Long recordings as overlapping windows, and windows back as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

FRAMES = 1024  # 10.24 s, what AudioLDM2 was trained on
OVERLAP = 64  # frames that neighbours share at least
PIECE = 1024  # frames that are vocoded at a time
CONTEXT = 32  # frames on each side that a frame's samples can depend on (21 in AudioLDM2's vocoder)


def window_starts(total: int, size: int = FRAMES, overlap: int = OVERLAP) -> list[int]:
    """First frames of windows of ``size`` over ``total`` frames. One window where it is enough.

    All are of one shape, so they can be batched: the last one ends with the recording and overlaps more.
    """
    if total <= size:
        return [0]
    return [*range(0, total - size, size - overlap), total - size]


def counted(batches: Iterable[torch.Tensor], done: Callable[[], None]) -> Iterator[torch.Tensor]:
    """The same batches; ``done()`` is called when the next one is asked for, and after the last."""
    for batch in batches:
        yield batch
        done()


def cross_fade(windows: torch.Tensor, first: list[int], total: int, overlap: int = OVERLAP) -> torch.Tensor:
    """Windows (W, 1, T, M) -> (1, 1, total, M), cross-faded linearly where they overlap."""
    return torch.cat([*cross_fade_stream(windows.split(1), first, overlap)], dim=2)


def cross_fade_stream(
    windows: Iterable[torch.Tensor], first: list[int], overlap: int = OVERLAP
) -> Iterator[torch.Tensor]:
    """Windows (1, 1, T, M) one after the other -> pieces (1, 1, n, M) that follow on each other, cross-faded linearly.

    What no later window reaches is given at once, so that little more than a window is held.
    """
    before: tuple[torch.Tensor, torch.Tensor] | None = None  # what the windows before have in the present one, weighed
    for window, start, following in zip(windows, first, [*first[1:], None], strict=True):
        frames = window.shape[2]
        if len(first) == 1:
            yield window
            return
        index = torch.arange(frames, dtype=torch.float32)
        ramp = torch.minimum(index + 1, frames - index).clamp(max=overlap + 1) / (overlap + 1)
        ramp = ramp[:, None].to(window)
        faded, ramps = window * ramp, ramp.clone()
        if before is not None:
            out, weight = before
            faded[:, :, : len(weight)] += out
            ramps[: len(weight)] += weight
        final = frames if following is None else following - start
        yield faded[:, :, :final] / ramps[:final]
        before = faded[:, :, final:], ramps[final:]


def split_with_context(mels: Iterable[torch.Tensor], hop: int) -> Iterator[tuple[torch.Tensor, slice]]:
    """Mels (1, 1, n, M) of any lengths that follow on each other -> (mel with context on both sides, which of its
    samples are meant)."""
    held, before = None, 0
    for mel in mels:
        held = mel if held is None else torch.cat([held, mel], dim=2)
        while held.shape[2] >= before + PIECE + CONTEXT:
            yield held[:, :, : before + PIECE + CONTEXT], slice(before * hop, (before + PIECE) * hop)
            held, before = held[:, :, before + PIECE - CONTEXT :], CONTEXT
    if held is not None and held.shape[2] > before:
        yield held, slice(before * hop, held.shape[2] * hop)
