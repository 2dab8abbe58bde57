"""The denoising loop as a codec: the encoder matches the noise to the residual, the decoder replays it.

Denoising Diffusion Codebook Models (arXiv 2502.01189, section 3). Both sides are the one ``denoise_loop`` with eta = 1
and differ in ``pick_noise``. A trajectory is chaotic: one last bit that differs in the first step changes the result
audibly. So both sides share what a UNet's rounding depends on besides its input: the windows in a call
(``batch_size``) and the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ddcm.codec import classic, turbo
from ddcm.codec.bitstream import BitReader, BitWriter
from ddcm.codec.header import Header
from ddcm.codec.model import LatentDiffusion
from ddcm.codec.noise_codebooks import NoiseCodebook, noise_codebook, start_noise
from ddcm.diffusion.loop import Denoiser, denoise_loop

PickNoises = Callable[[int, torch.Tensor, int], list[torch.Tensor]]
"""``pick(step, x0, count)``: the noise (n,) of each window after a step, from the estimates x0 (W, C, L, F)."""
OnCall = Callable[[], None]
"""Called after each UNet call."""


@contextmanager
def fixed_arithmetic(threads: int) -> Iterator[None]:
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


def _prompted(header: Header, model: LatentDiffusion) -> Denoiser:
    return model.denoiser(header.prompt, "", header.guidance / 256)


def encode_windows(
    header: Header, model: LatentDiffusion, z: torch.Tensor, weights: torch.Tensor, windows: Sequence[int],
    writers: Sequence[BitWriter], on_call: OnCall | None = None,
) -> torch.Tensor:  # fmt: skip
    """Code latents z (W, C, L, F), W <= ``header.batch_size``; return the latents that the decoder will get.

    Args:
        weights: (W, C, L, F); the noise is chosen for the residual times these.
        windows: number of each window in its recording. Windows of several recordings may share a call; where all
            numbers are equal, all share their atoms, which are then drawn once.
        writers: take the bits of each window; may all be one writer.
    """
    codebook = noise_codebook(header)
    targets, weights = (x.detach().float().to(model.device) for x in (z, weights))
    symbols: list[list[Any]] = [[] for _ in windows]

    def pick(step: int, x0: torch.Tensor, count: int) -> list[torch.Tensor]:
        residuals = ((targets - x0) * weights).flatten(1)
        noises = []
        for row, (symbol, choice) in enumerate(_choose(codebook, header, windows, step, residuals, count)):
            symbols[row].append(symbol)
            noises.append(codebook.synthesize(windows[row], step, *choice))
        return noises

    result = denoise_windows(header, model, _prompted(header, model), windows, pick, on_call)
    for writer, symbols_of_window in zip(writers, symbols, strict=True):
        for symbol in symbols_of_window:
            if header.mode == "classic":
                classic.write(writer, symbol, header.log2_atoms, header.coefficient_bits)
            else:
                turbo.write(writer, symbol, header.log2_atoms)
    return result


def _choose(
    codebook: NoiseCodebook, header: Header, windows: Sequence[int], step: int, residuals: torch.Tensor, count: int
) -> Iterator[tuple[Any, turbo.Choice]]:
    """For each window's residual (W, n): the symbol to write, and the atoms and weights that it stands for."""
    if header.mode == "classic":
        for window, residual in zip(windows, residuals, strict=True):
            stages = classic.choose(codebook, window, step, residual.cpu(), count, header.coefficient_bits)
            yield stages, classic.weights(stages, header.coefficient_bits)
        return
    if len(set(windows)) == 1:
        rows: Iterable[torch.Tensor] = codebook.correlate(windows[0], step, residuals)
    else:
        rows = (codebook.correlate(window, step, row) for window, row in zip(windows, residuals, strict=True))
    for correlations in rows:
        choice = turbo.choose(correlations, count)
        yield choice, choice


def decode_windows(
    header: Header, model: LatentDiffusion, windows: Sequence[int], readers: Sequence[BitReader],
    on_call: OnCall | None = None,
) -> torch.Tensor:  # fmt: skip
    """The latents (W, C, L, F) that the encoder got, each from a reader at the first bit of its window.

    Raises:
        ValueError: bits that no encoder writes.
    """
    codebook = noise_codebook(header)

    def pick(step: int, x0: torch.Tensor, count: int) -> list[torch.Tensor]:
        noises = []
        for window, reader in zip(windows, readers, strict=True):
            if header.mode == "classic":
                stages = classic.read(reader, count, header.log2_atoms, header.coefficient_bits)
                atoms, weights = classic.weights(stages, header.coefficient_bits)
            else:
                atoms, weights = turbo.read(reader, count, header.log2_atoms)
            if header.book == "hadamard":
                atoms, weights = (torch.tensor(x).to(x0.device, non_blocking=True) for x in (atoms, weights))
            noises.append(codebook.synthesize(window, step, atoms, weights))
        return noises

    return denoise_windows(header, model, _prompted(header, model), windows, pick, on_call)


def denoise_windows(
    header: Header, model: LatentDiffusion, denoise: Denoiser, windows: Sequence[int], pick: PickNoises,
    on_call: OnCall | None,
) -> torch.Tensor:  # fmt: skip
    """The loop over ``header.batch_size`` windows at once; a smaller last group is filled up, to keep the shape."""
    schedule, shape = header.steps, header.latent_shape
    batch = [*windows, *[windows[-1]] * (header.batch_size - len(windows))]
    x = torch.stack([start_noise(header.seed, window, header.latent_size).reshape(shape) for window in batch])

    def pick_noise(step: int, x0: torch.Tensor) -> torch.Tensor | None:
        count = schedule.atoms[step]
        if count == 0:
            return None
        noises = pick(step, x0[: len(windows)].detach().float(), count)
        noises += [noises[-1]] * (len(batch) - len(noises))
        return torch.stack(noises).reshape(x0.shape).to(x0)

    with fixed_arithmetic(header.threads):
        result = denoise_loop(
            denoise, x.to(model.device), schedule.timesteps, model.alphas_cumprod, pick_noise=pick_noise,
            on_step=None if on_call is None else lambda step, x0: on_call(),
        )  # fmt: skip
        model.check()
    return result[: len(windows)]
