"""The log-mel spectrogram that AudioLDM2's VAE and vocoder were trained on."""

import functools
from dataclasses import asdict, dataclass

import numpy as np
import torch

LN_TO_DB = 8.685889638065035  # 20 / ln(10): a difference of natural-log magnitudes in decibels


@dataclass(frozen=True)
class MelBands:
    """Frames and bands of a mel spectrogram, with Slaney's scale and norm. The defaults are AudioLDM's."""

    sample_rate: int = 16000
    n_fft: int = 1024
    hop: int = 160
    n_mels: int = 64
    fmin: float = 0.0
    fmax: float = 8000.0


@dataclass(frozen=True)
class MelSpec(MelBands):
    """Settings of a log-mel spectrogram. The defaults are those of AudioLDM's training code.

    It has magnitudes (power 1) and natural logarithms. The waveform is reflected by (n_fft - hop) / 2 on each side, not
    by n_fft / 2 as in ``torch.stft(center=True)``, so S samples give exactly S // hop frames.
    """

    floor: float = 1e-5  # magnitudes are clamped here before the logarithm

    def to_dict(self) -> dict:
        return asdict(self)


@functools.lru_cache(maxsize=8)
def filterbank(bands: MelBands) -> torch.Tensor:
    """Librosa's filters (n_mels, n_fft // 2 + 1), to the bit, without its second of imports. Torchaudio's differ by
    5e-8, which matters near the floor."""
    edges, frequencies = _band_edges(bands), np.fft.rfftfreq(bands.n_fft, 1 / bands.sample_rate)
    widths, ramps = np.diff(edges), np.subtract.outer(edges, frequencies)
    rising, falling = -ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    return torch.from_numpy((triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32))


def band_centres(bands: MelBands) -> list[float]:
    """Centre of each band in Hz, ascending, n_mels of them."""
    return _band_edges(bands)[1:-1].tolist()


def _band_edges(bands: MelBands) -> np.ndarray:
    """n_mels + 2 frequencies in Hz, even on Slaney's scale: linear up to 1 kHz, logarithmic above."""
    linear, step, knee = 200 / 3, np.log(6.4) / 27, 1000 / (200 / 3)
    low, high = (f / linear if f < 1000 else knee + np.log(f / 1000) / step for f in (bands.fmin, bands.fmax))
    mels = np.linspace(low, high, bands.n_mels + 2)
    return np.where(mels < knee, linear * mels, 1000 * np.exp(step * (mels - knee)))


@functools.lru_cache(maxsize=8)
def _on_device(spec: MelSpec, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.hann_window(spec.n_fft).to(device), filterbank(spec).to(device)


@torch.autocast("cpu", enabled=False)
@torch.autocast("cuda", enabled=False)
def log_mel(audio: torch.Tensor, spec: MelSpec = MelSpec()) -> torch.Tensor:
    """Audio (B, S) at ``spec.sample_rate`` -> log-mel (B, 1, S // hop, n_mels), fp32, natural logarithm.

    Differentiable, on the audio's device. Audio shorter than the reflection is padded with silence first.

    Source: ``audioldm_train/utilities/data/dataset.py`` of AudioLDM-training-finetuning.
    """
    if audio.ndim != 2:
        raise ValueError(f"audio must be (B, S), not {tuple(audio.shape)}")
    audio = audio.float()
    frames = audio.shape[-1] // spec.hop
    if frames == 0:
        raise ValueError(f"audio has {audio.shape[-1]} samples; one frame needs {spec.hop}")
    window, bank = _on_device(spec, str(audio.device))
    pad = (spec.n_fft - spec.hop) // 2
    if audio.shape[-1] <= pad:
        audio = torch.nn.functional.pad(audio, (0, pad + 1 - audio.shape[-1]))
    audio = torch.nn.functional.pad(audio[:, None], (pad, pad), mode="reflect")[:, 0]
    spectrum = torch.stft(audio, spec.n_fft, hop_length=spec.hop, window=window, center=False, return_complex=True)
    mel = bank @ spectrum.abs()  # [B, M, T]
    mel = mel[..., :frames].clamp(min=spec.floor).log()
    return mel.transpose(1, 2)[:, None]  # [B, 1, T, M]


def mel_error_db(mel: torch.Tensor, other: torch.Tensor) -> float:
    """Mean absolute difference in dB of two log-mels of one shape."""
    return float((mel - other).abs().mean()) * LN_TO_DB
