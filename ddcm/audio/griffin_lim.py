"""A log-mel spectrogram to audio without a network: phases that fit the magnitudes."""

import math

import torch

from ddcm.audio.mel import MelSpec, filterbank
from ddcm.audio.windows import split_with_context

ITERATIONS = 32  # of fast Griffin-Lim
MOMENTUM = 0.99
UPDATES = 20  # of the non-negative least squares from bands to STFT bins
LOUDEST = 3.0  # nats: nothing at peak 0.5 has a louder mel


def clamp_mel(mel: torch.Tensor, spec: MelSpec) -> torch.Tensor:
    """A log-mel brought into the range of recordings at peak 0.5; NaN becomes the floor."""
    floor = math.log(spec.floor)
    return mel.nan_to_num(nan=floor, posinf=LOUDEST, neginf=floor).clamp(floor, LOUDEST)


def griffin_lim(mel: torch.Tensor, spec: MelSpec) -> torch.Tensor:
    """Log-mel (1, 1, T, M) -> audio (hop T,) on the CPU, the same at every call. Source: fast Griffin-Lim, Perraudin et
    al. 2013, on magnitudes by multiplicative updates (Lee and Seung 2001)."""
    pieces = split_with_context([clamp_mel(mel.cpu(), spec)], spec.hop)
    return torch.cat([_invert(piece, spec)[kept] for piece, kept in pieces])


def _invert(mel: torch.Tensor, spec: MelSpec) -> torch.Tensor:
    """mel (1, 1, T, M) -> audio (hop T,), from seeded random phases."""
    magnitude = _estimate_magnitudes(mel[0, 0].exp().T, filterbank(spec))
    window = torch.hann_window(spec.n_fft)
    # Frames of the mel are centred half a hop into the signal: one more frame on each side, cut off at the end.
    magnitude = torch.cat([magnitude[:, :1], magnitude, magnitude[:, -1:]], dim=1)
    samples, half = spec.hop * (mel.shape[2] + 1), spec.hop // 2
    generator = torch.Generator().manual_seed(0)
    angles = torch.polar(torch.ones(magnitude.shape), torch.rand(magnitude.shape, generator=generator) * 2 * torch.pi)
    previous = torch.zeros_like(angles)
    mode = "reflect" if samples > spec.n_fft // 2 else "constant"
    for _ in range(ITERATIONS):
        audio = torch.istft(magnitude * angles, spec.n_fft, spec.hop, window=window, length=samples)
        rebuilt = torch.stft(audio, spec.n_fft, spec.hop, window=window, pad_mode=mode, return_complex=True)
        angles = rebuilt - previous * (MOMENTUM / (1 + MOMENTUM))
        angles, previous = angles / angles.abs().clamp(min=1e-12), rebuilt
    audio = torch.istft(magnitude * angles, spec.n_fft, spec.hop, window=window, length=samples)
    return audio[half : half + spec.hop * mel.shape[2]]


def _estimate_magnitudes(target: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """Band magnitudes (M, T) and filters (M, bins) -> non-negative STFT magnitudes (bins, T) with these bands."""
    magnitude = bank.T @ (target / bank.sum(dim=1, keepdim=True).clamp(min=1e-12))
    for _ in range(UPDATES):
        magnitude = magnitude * (bank.T @ (target / (bank @ magnitude).clamp(min=1e-12)))
        magnitude = magnitude / bank.sum(dim=0)[:, None].clamp(min=1e-12)
    return magnitude
