"""The denoising loop as a codec: the encoder matches the noise to the residual, the decoder replays it.

Denoising Diffusion Codebook Models (arXiv 2502.01189, section 3). Both sides are the one ``denoise_loop`` with eta = 1
and differ in ``pick_noise``. Decoding is not chaotic: the choices are in the file, so a difference in rounding shrinks
on the way. Any machine, device, number of threads and windows in a call decode a file to the same mels within 0.01 dB,
float16 too; docs/explanation.md has the figures. On the same machine the bits are the same.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

from ddcm.codec import selection
from ddcm.codec.bitstream import BitReader, BitWriter
from ddcm.codec.header import Header
from ddcm.codec.model import LatentDiffusion
from ddcm.codec.noise_codebooks import noise_codebook, start_noise
from ddcm.codec.targets import ComputeResidual, Targets, make_residual
from ddcm.diffusion.loop import Denoiser, denoise_loop

PickNoises = Callable[[int, torch.Tensor], list[torch.Tensor]]  # (step, x0 (W, C, L, F)) -> noises (n,)
MakeResidual = Callable[[LatentDiffusion, Targets, int], ComputeResidual]  # as make_residual
OnCall = Callable[[], None]  # Called after each UNet call.


@contextmanager
def fixed_arithmetic() -> Iterator[None]:
    """Inside, a GPU computes in full float32 by deterministic algorithms."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul


def encode_windows(
    header: Header, model: LatentDiffusion, targets: Targets, windows: Sequence[int], writers: Sequence[BitWriter],
    on_call: OnCall | None = None, make: MakeResidual = make_residual,
) -> torch.Tensor:  # fmt: skip
    """Code the targets of W windows together; return the latents (W, C, L, F) that the decoder will get.

    Args:
        windows: number of each window in its recording. Windows of several recordings may share a call; where all
            numbers are equal, all share their atoms, which are then drawn once.
        writers: take the bits of each window; may all be one writer.
        make: the residual that the noise of each step is chosen for.
    """
    codebook, counts = noise_codebook(header), [header.atoms_of(window) for window in windows]
    targets = targets.to(model.device)
    compute = make(model, targets, len(header.steps.atoms))
    symbols: list[list[selection.Symbol]] = []  # [steps][windows]

    def pick(step: int, x0: torch.Tensor) -> list[torch.Tensor]:
        residuals = compute(step, x0).flatten(1)
        chosen: list[selection.Symbol]
        if header.mode == "classic":
            bits, rows = header.coefficient_bits, zip(windows, residuals.cpu(), counts, strict=True)
            chosen = [selection.pursue(codebook, window, step, row, of[step], bits) for window, row, of in rows]
        else:
            correlations: Iterable[torch.Tensor]
            if len(set(windows)) == 1:
                correlations = codebook.correlate(windows[0], step, residuals, counts[0][step])
            else:
                rows = zip(windows, residuals, counts, strict=True)
                correlations = (codebook.correlate(window, step, row, of[step]) for window, row, of in rows)
            chosen = [selection.choose_largest(row, of[step]) for row, of in zip(correlations, counts, strict=True)]
        symbols.append(chosen)
        pairs = zip(windows, chosen, strict=True)
        return [codebook.synthesize(window, step, *selection.to_choice(symbol, header)) for window, symbol in pairs]

    denoise = model.denoiser(header.prompt, "", header.guidance / 256, header.cache_interval)
    result = denoise_windows(header, model, denoise, windows, pick, on_call)
    for row, writer in enumerate(writers):
        for chosen in symbols:
            selection.write(writer, chosen[row], header)
    return result


def decode_windows(
    header: Header, model: LatentDiffusion, windows: Sequence[int], readers: Sequence[BitReader],
    on_call: OnCall | None = None,
) -> torch.Tensor:  # fmt: skip
    """The latents (W, C, L, F) that the encoder got, each from a reader at the first bit of its window. Raises
    ValueError: bits that no encoder writes."""
    codebook, counts = noise_codebook(header), [header.atoms_of(window) for window in windows]

    def pick(step: int, x0: torch.Tensor) -> list[torch.Tensor]:
        noises = []
        for window, reader, of in zip(windows, readers, counts, strict=True):
            atoms, weights = selection.to_choice(selection.read(reader, of[step], header), header)
            if header.book == "hadamard":
                atoms, weights = (torch.tensor(x).to(x0.device, non_blocking=True) for x in (atoms, weights))
            noises.append(codebook.synthesize(window, step, atoms, weights))
        return noises

    denoise = model.denoiser(header.prompt, "", header.guidance / 256, header.cache_interval)
    return denoise_windows(header, model, denoise, windows, pick, on_call)


def denoise_windows(
    header: Header, model: LatentDiffusion, denoise: Denoiser, windows: Sequence[int], pick: PickNoises,
    on_call: OnCall | None,
) -> torch.Tensor:  # fmt: skip
    """The loop over some windows at once."""
    schedule, shape = header.steps, header.latent_shape
    x = torch.stack([start_noise(header.seed, window, header.latent_size).reshape(shape) for window in windows])

    def pick_noise(step: int, x0: torch.Tensor) -> torch.Tensor | None:
        if not schedule.atoms[step]:
            return None
        return torch.stack(pick(step, x0.detach().float())).reshape(x0.shape).to(x0, non_blocking=True)

    with fixed_arithmetic():
        result = denoise_loop(
            denoise, x.to(model.device), schedule.timesteps, model.alphas_cumprod, pick_noise=pick_noise,
            on_step=None if on_call is None else lambda step, x0: on_call(),
        )  # fmt: skip
        model.check()
    return result
