"""The denoising loop as a codec: the encoder's noise is matched to the residual, the decoder's is replayed.

Both are the one ``denoise_loop`` with eta = 1 and differ in ``pick_noise``. A trajectory is chaotic: a last bit that
differs in the first step is heard at the end. So both sides also share what a UNet's rounding depends on besides its
input: the number of windows in a call (``lanes``) and the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ddcm.codec import classic, turbo
from ddcm.codec.bitstream import BitReader, BitWriter
from ddcm.codec.format import Stream
from ddcm.codec.layout import BANDS, CHANNELS, Layout
from ddcm.codec.noise_codebooks import BOOKS, Book, start_noise
from ddcm.codec.schedule import expand
from ddcm.diffusion.loop import Denoise, denoise_loop

Pick = Callable[[int, torch.Tensor, int], list[torch.Tensor]]
"""``pick(step, x0, count) -> noises (n,)`` of the windows' step, from their estimates x0 (W, C, L, F)."""
Stages = turbo.Choice | list[tuple[int, int]]
"""What a step wrote into the file: turbo's atoms and signs, or classic's (atom, level) of each stage."""
OnCall = Callable[[], None]
"""Called after each UNet call, for progress."""


@dataclass(frozen=True)
class Sampler:
    """What a trajectory needs of a backbone."""

    denoise: Denoise
    alphas_cumprod: torch.Tensor
    device: torch.device
    check: Callable[[], None]
    """``Backbone.check``"""


@contextmanager
def same_arithmetic(threads: int) -> Iterator[None]:
    """Inside, torch computes with this many CPU threads, and on a GPU in full float32 by deterministic algorithms."""
    before, matmul = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)
        torch.backends.cuda.matmul.allow_tf32 = matmul


def book_of(stream: Stream, placed: Layout) -> Book:
    return BOOKS[stream.book](stream.seed, placed.numbers, stream.log2_atoms)


def encode_windows(
    stream: Stream, placed: Layout, sampler: Sampler, z: torch.Tensor, weights: torch.Tensor, windows: Sequence[int],
    outs: Sequence[BitWriter], on_call: OnCall | None = None,
) -> torch.Tensor:  # fmt: skip
    """Code the windows' latents z (W, C, L, F), W <= lanes, each into its writer of ``outs`` (which may be one and the
    same); returns what the decoder will make of them. Noise is chosen for the residual times ``weights``.

    Windows of several recordings may go together. Where all have the same number, as recordings of one window do, they
    share their atoms, which are then drawn once for all.
    """
    book = book_of(stream, placed)
    targets, weights = (x.detach().float().to(sampler.device) for x in (z, weights))
    chosen: list[list[Stages]] = [[] for _ in windows]

    def pick(step: int, x0: torch.Tensor, count: int) -> list[torch.Tensor]:
        noises = []
        residuals = ((targets - x0) * weights).flatten(1)
        for lane, (stages, choice) in enumerate(choose(book, stream, windows, step, residuals, count)):
            chosen[lane].append(stages)
            noises.append(book.synthesize(windows[lane], step, *choice))
        return noises

    result = run(stream, placed, sampler, windows, pick, on_call)
    for out, stages_of_window in zip(outs, chosen, strict=True):
        for stages in stages_of_window:
            write_choice(out, stream, stages)
    return result


def choose(book: Book, stream: Stream, windows: Sequence[int], step: int, residuals: torch.Tensor, count: int):
    """(what is written, the choice it stands for) of each window's residual (W, n)."""
    if stream.mode == "classic":
        for window, residual in zip(windows, residuals, strict=True):
            stages = classic.choose(book, window, step, residual.cpu(), count, stream.coefficient_bits)
            yield stages, classic.weights(stages, stream.coefficient_bits)
        return
    if len(set(windows)) == 1:
        found: Iterable[torch.Tensor] = book.correlate(windows[0], step, residuals)
    else:
        found = (book.correlate(window, step, row) for window, row in zip(windows, residuals, strict=True))
    for correlations in found:
        choice = turbo.of_correlations(correlations, count)
        yield choice, choice


def decode_windows(
    stream: Stream, placed: Layout, sampler: Sampler, windows: Sequence[int], readers: Sequence[BitReader],
    on_call: OnCall | None = None,
) -> torch.Tensor:  # fmt: skip
    """The windows' latents (W, C, L, F) again, each from a reader at the window's first bit.

    Raises:
        ValueError: bits that no encoder writes.
    """
    book = book_of(stream, placed)

    def pick(step: int, x0: torch.Tensor, count: int) -> list[torch.Tensor]:
        noises = []
        for window, reader in zip(windows, readers, strict=True):
            atoms, weights = read_choice(reader, stream, count)
            if stream.book == "hadamard":
                atoms, weights = (torch.tensor(x).to(x0.device, non_blocking=True) for x in (atoms, weights))
            noises.append(book.synthesize(window, step, atoms, weights))
        return noises

    return run(stream, placed, sampler, windows, pick, on_call)


def write_choice(out: BitWriter, stream: Stream, stages: Any) -> None:
    """``stages`` is ``Stages`` of the stream's mode."""
    if stream.mode == "classic":
        classic.write(out, stages, stream.log2_atoms, stream.coefficient_bits)
    else:
        turbo.write(out, stages, stream.log2_atoms)


def read_choice(data: BitReader, stream: Stream, count: int) -> turbo.Choice:
    if stream.mode == "classic":
        stages = classic.read(data, count, stream.log2_atoms, stream.coefficient_bits)
        return classic.weights(stages, stream.coefficient_bits)
    return turbo.read(data, count, stream.log2_atoms)


def run(
    stream: Stream, placed: Layout, sampler: Sampler, windows: Sequence[int], pick: Pick, on_call: OnCall | None,
) -> torch.Tensor:  # fmt: skip
    """The loop over ``lanes`` windows at once; a last group that is smaller is filled up, so that the shape stays."""
    schedule, shape = expand(stream.schedule), (CHANNELS, placed.latent_frames, BANDS)
    lanes = [*windows, *[windows[-1]] * (stream.lanes - len(windows))]
    x = torch.stack([start_noise(stream.seed, window, placed.numbers).reshape(shape) for window in lanes])

    def pick_noise(step: int, x0: torch.Tensor) -> torch.Tensor | None:
        count = schedule.atoms[step]
        if count == 0:
            return None
        noises = pick(step, x0[: len(windows)].detach().float(), count)
        noises += [noises[-1]] * (len(lanes) - len(noises))
        return torch.stack(noises).reshape(x0.shape).to(x0)

    def denoise_and_tell(x: torch.Tensor, t: int) -> torch.Tensor:
        x0 = sampler.denoise(x, t)
        if on_call is not None:
            on_call()
        return x0

    with same_arithmetic(stream.threads):
        x = x.to(sampler.device)
        alphas = sampler.alphas_cumprod
        result = denoise_loop(denoise_and_tell, x, schedule.timesteps, alphas, pick_noise=pick_noise)
        sampler.check()
    return result[: len(windows)]
