"""A mel becomes audio: by the backbone's vocoder, or by what is left when it fails."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch

from ddcm.audio.mel import LN_TO_DB, MelSpec, filterbank
from ddcm.audio.refine import refine
from ddcm.backbone import Backbone
from ddcm.errors import UserError

FRAMES = 1024  # mel frames that are vocoded at a time
CONTEXT = 32  # frames on each side that a frame's samples can depend on (21 in AudioLDM2's vocoder)
HIGH, MID = 48, 16  # first band of the high ones, and of the middle ones below them
LOUDEST = 3.0  # nats: nothing at peak 0.5 has a louder mel
PASSES = 32  # of Griffin-Lim
MOMENTUM = 0.99


def vocode(mel: torch.Tensor, chain: str, backbone: Backbone) -> tuple[torch.Tensor, str, list[str]]:
    """mel (1, 1, T, M) -> audio (hop T,) on the CPU, the strategy that gave it, and why those before it did not.

    ``chain`` is strategies with commas between them; one is tried only when those before it failed, that is, raised
    an error or gave numbers that are not finite. Out of memory is no reason to change the result: it is raised.

    Raises:
        UserError: all failed; the message is the last one's.
    """
    failed: list[str] = []
    names = chain.split(",")
    for name in names:
        try:
            audio = STRATEGIES[name](mel, backbone)
            if not torch.isfinite(audio).all():
                raise UserError("the vocoder gave NaN or infinity")
            return audio, name, failed
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            if name == names[-1]:
                raise
            failed.append(f"{name}: {str(error).splitlines()[0]}")
    raise AssertionError("a chain has at least one strategy")


def by_backbone(mel: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """The backbone's vocoder as its pipeline calls it, piece by piece: exact for a convolutional one."""
    return torch.cat([*_pieces([mel], backbone)])


def refined(mel: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """The same, each piece corrected towards its mel (``ddcm.audio.refine``)."""
    return torch.cat([*_pieces([mel], backbone, refine)])


def direct(mel: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """The vocoder itself in float32, on a mel brought into the range that it was trained in."""
    floor = math.log(backbone.mel_spec.floor)
    mel = mel.nan_to_num(nan=floor, posinf=LOUDEST, neginf=floor).clamp(floor, LOUDEST)
    return torch.cat([*_pieces([mel], backbone, dtype="float32")])


def griffin_lim(mel: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Without a network: phases that fit the magnitudes (fast Griffin-Lim, Perraudin et al. 2013)."""
    floor = math.log(backbone.mel_spec.floor)
    mel = mel.cpu().nan_to_num(nan=floor, posinf=LOUDEST, neginf=floor).clamp(floor, LOUDEST)
    spec = backbone.mel_spec
    return torch.cat([_phases(piece, spec)[meant] for piece, meant in with_context([mel], spec.hop)])


STRATEGIES = {"backbone": by_backbone, "refined": refined, "direct": direct, "griffin-lim": griffin_lim}


def lift_high(mel: torch.Tensor, kept: float) -> tuple[torch.Tensor, float]:
    """The decoded log-mel (1, 1, T, M) with bands from 48 up louder, and the factor on their magnitudes.

    ``kept`` is the share of the input's magnitude above 4 kHz (root of the energy) that a first pass through the
    vocoder has left; nothing is done unless more than 0.1 was lost. The factor is 1 + min(0.5, (mean of bands 16 to
    47 - mean of bands from 48 up) / 10), means of the decoded log-mel in decibels as in the features that the formula
    was made for; never under 1, and not more than what was lost. It multiplies magnitudes, so it is added in the
    logarithm: multiplying the logarithms themselves, which are negative, would make the bands quieter.
    """
    if 1 - kept <= 0.1:
        return mel, 1.0
    gap_db = float(mel[..., MID:HIGH].mean() - mel[..., HIGH:].mean()) * LN_TO_DB
    factor = min(1 + min(0.5, max(0.0, gap_db / 10)), 1 / max(kept, 1e-3))
    lifted = mel.clone()
    lifted[..., HIGH:] += math.log(factor)
    return lifted, factor


def streamed(mels: Iterable[torch.Tensor], name: str, backbone: Backbone) -> Iterator[torch.Tensor]:
    """Mels (1, 1, n, M) that follow on each other -> audio (S,) piece by piece: what the strategies ``backbone`` and
    ``refined`` give of the whole."""
    yield from _pieces(mels, backbone, refine if name == "refined" else None)


def with_context(mels: Iterable[torch.Tensor], hop: int) -> Iterator[tuple[torch.Tensor, slice]]:
    """Mels (1, 1, n, M) of any lengths that follow on each other -> (mel with context on both sides, which of its
    samples are meant)."""
    held, before = None, 0
    for mel in mels:
        held = mel if held is None else torch.cat([held, mel], dim=2)
        while held.shape[2] >= before + FRAMES + CONTEXT:
            yield held[:, :, : before + FRAMES + CONTEXT], slice(before * hop, (before + FRAMES) * hop)
            held, before = held[:, :, before + FRAMES - CONTEXT :], CONTEXT
    if held is not None and held.shape[2] > before:
        yield held, slice(before * hop, held.shape[2] * hop)


def _pieces(mels: Iterable[torch.Tensor], backbone: Backbone, correct=None, dtype: str | None = None):
    for piece, meant in with_context(mels, backbone.mel_spec.hop):
        audio = backbone.vocode(piece, dtype)[0].cpu()
        if correct is not None:
            audio = correct(audio, piece, backbone.mel_spec)
        yield audio[meant]


def _phases(mel: torch.Tensor, spec: MelSpec) -> torch.Tensor:
    """mel (1, 1, T, M) -> audio (hop T,), from seeded random phases."""
    bank = filterbank(spec)
    target = mel[0, 0].exp().T  # [M, T]
    magnitude = bank.T @ (target / bank.sum(dim=1, keepdim=True).clamp(min=1e-12))
    for _ in range(20):  # multiplicative updates: non-negative magnitudes with these bands (Lee and Seung 2001)
        magnitude = magnitude * (bank.T @ (target / (bank @ magnitude).clamp(min=1e-12)))
        magnitude = magnitude / bank.sum(dim=0)[:, None].clamp(min=1e-12)
    window = torch.hann_window(spec.n_fft)
    # Frames of the mel are centred half a hop into the signal: one more frame on each side, cut off at the end.
    magnitude = torch.cat([magnitude[:, :1], magnitude, magnitude[:, -1:]], dim=1)
    samples, half = spec.hop * (mel.shape[2] + 1), spec.hop // 2
    generator = torch.Generator().manual_seed(0)
    angles = torch.polar(torch.ones(magnitude.shape), torch.rand(magnitude.shape, generator=generator) * 2 * torch.pi)
    before = torch.zeros_like(angles)
    mode = "reflect" if samples > spec.n_fft // 2 else "constant"
    for _ in range(PASSES):
        audio = torch.istft(magnitude * angles, spec.n_fft, spec.hop, window=window, length=samples)
        rebuilt = torch.stft(audio, spec.n_fft, spec.hop, window=window, pad_mode=mode, return_complex=True)
        angles = rebuilt - before * (MOMENTUM / (1 + MOMENTUM))
        angles, before = angles / angles.abs().clamp(min=1e-12), rebuilt
    audio = torch.istft(magnitude * angles, spec.n_fft, spec.hop, window=window, length=samples)
    return audio[half : half + spec.hop * mel.shape[2]]
