"""Front ends: audio -> the VAE's input.

``matched`` is the log-mel that the VAE was trained on (``ddcm.audio.mel``). The others are analyses for other models:
48 kHz, other band edges, powers in decibels. Each is an analysis and a conversion into the VAE's domain (``convert``),
which can be left out.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ddcm.audio.files import resample
from ddcm.audio.mel import MelBands, MelSpec, band_centres, filterbank, log_mel

POWER_FLOOR = 1e-10
NP_TO_DB = 10 / np.log(10)  # nepers of power to decibels


@dataclass(frozen=True, kw_only=True)
class FrontEnd(MelBands):
    """A mel spectrogram of powers in decibels: 10 log10(max(power, 1e-10)), centred frames, Slaney's bands."""

    sample_rate: int = 48000
    top_db: float | None  # Dynamic range: lower values are clamped to the maximum minus ``top_db``; None: no clamping.
    pad_mode: str = "constant"  # of centred frames at the ends: librosa pads with silence, CLAP's extractor reflects


FRONT_ENDS: dict[str, FrontEnd] = {
    "librosa": FrontEnd(n_fft=1200, hop=480, fmin=50, fmax=24000, top_db=80),  # 25 ms, 10 ms
    "librosa-high": FrontEnd(n_fft=2048, hop=480, fmin=0, fmax=24000, top_db=120),
    "plain": FrontEnd(n_fft=2048, hop=512, fmin=50, fmax=8000, top_db=80),
}


def clap_front_end(extractor: Mapping[str, Any]) -> FrontEnd:
    """The analysis of a ``ClapFeatureExtractor``, from its preprocessor_config.json. The extractor itself crops ten
    seconds at random; here any length is analysed."""
    return FrontEnd(
        n_fft=extractor["fft_window_size"], hop=extractor["hop_length"], n_mels=extractor["feature_size"],
        fmin=extractor["frequency_min"], fmax=extractor["frequency_max"], sample_rate=extractor["sampling_rate"],
        top_db=extractor.get("top_db"), pad_mode="reflect",
    )  # fmt: skip


def extract(
    name: str, audio: torch.Tensor, spec: MelSpec, extractor: Mapping[str, Any] | None = None, raw: bool = False
) -> tuple[torch.Tensor, str]:
    """Audio (S,) at ``spec.sample_rate``, S whole frames -> features (1, 1, S // hop, M), and the front end used.

    Args:
        name: ``matched``, ``clap`` or one of ``FRONT_ENDS``.
        extractor: settings of the backbone's CLAP extractor; without them, ``clap`` becomes ``librosa``.
        raw: leave out the conversion: decibels and bands stay, and only frames are resampled to the spec's hop.
    """
    if name == "matched":
        return log_mel(audio[None], spec), name
    if name == "clap" and extractor is not None:
        front = clap_front_end(extractor)
    else:
        name = "librosa" if name == "clap" else name
        front = FRONT_ENDS[name]
    frames = len(audio) // spec.hop
    decibels = analyse(audio, spec.sample_rate, front)
    if raw:
        return _at(decibels, _frame_places(frames, front, spec))[None, None], name
    return convert(decibels, frames, front, spec), name


def analyse(audio: torch.Tensor, sample_rate: int, front: FrontEnd) -> torch.Tensor:
    """Audio (S,) -> decibels (frames, n_mels), S' // hop + 1 frames for S' resampled samples."""
    samples = torch.from_numpy(resample(audio.numpy(), sample_rate, front.sample_rate))
    mode = front.pad_mode if len(samples) > front.n_fft // 2 else "constant"
    window = torch.hann_window(front.n_fft)
    spectrum = torch.stft(samples, front.n_fft, front.hop, window=window, pad_mode=mode, return_complex=True)
    power = filterbank(front) @ spectrum.abs().square()
    decibels = 10 * power.clamp(min=POWER_FLOOR).log10().T
    return decibels if front.top_db is None else decibels.clamp(min=float(decibels.max()) - front.top_db)


def convert(decibels: torch.Tensor, frames: int, front: FrontEnd, spec: MelSpec) -> torch.Tensor:
    """Decibels (frames', n_mels) -> the VAE's domain (1, 1, frames, M): natural log magnitudes.

    1. Time: the VAE's window is longer (64 ms). Powers are averaged under the square of that window, around the centre
       of each of the VAE's frames.
    2. Bands: log powers are interpolated from the analysis's band centres to the VAE's (0 to 8 kHz). Beyond the
       analysis's edges, the nearest band is used.
    3. Level: half of the natural log power, plus an offset of each band measured on white noise (``_offsets``), not
       below the VAE's floor.
    """
    converted = _convert_shape(decibels, frames, front, spec) + _offsets(front, spec)
    return converted.clamp(min=float(np.log(spec.floor)))[None, None]


def _convert_shape(decibels: torch.Tensor, frames: int, front: FrontEnd, spec: MelSpec) -> torch.Tensor:
    places = _frame_places(frames, front, spec)
    power = (decibels / NP_TO_DB).exp()
    # The square of the VAE's window, as wide as its excess over the analysis's window.
    half = (spec.n_fft / spec.sample_rate - front.n_fft / front.sample_rate) / 2 * front.sample_rate / front.hop
    steps = torch.linspace(-half, half, 2 * max(1, round(half)) + 1)
    weights = torch.cos(steps / (half + 1) * torch.pi / 2) ** 4
    power = sum(w * _at(power, places + step) for w, step in zip(weights / weights.sum(), steps, strict=True))
    return 0.5 * power.clamp(min=POWER_FLOOR).log() @ _band_map(front, spec).T


def _frame_places(frames: int, front: FrontEnd, spec: MelSpec) -> torch.Tensor:
    """Centres of the spec's frames, in frames of the front end: (frames,)."""
    seconds = (torch.arange(frames) + 0.5) * spec.hop / spec.sample_rate
    return seconds * front.sample_rate / front.hop


def _at(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Linear interpolation of rows (N, M) at fractional places (T,); beyond the ends, the first or last row."""
    places = places.clamp(0, len(rows) - 1)
    below = places.floor().long().clamp(max=max(0, len(rows) - 2))
    share = (places - below)[:, None]
    return rows[below] * (1 - share) + rows[(below + 1).clamp(max=len(rows) - 1)] * share


@functools.lru_cache(maxsize=8)
def _band_map(front: FrontEnd, spec: MelSpec) -> torch.Tensor:
    """(M of the spec, n_mels of the front end): linear interpolation between band centres in Hz."""
    columns = [np.interp(band_centres(spec), band_centres(front), row) for row in np.eye(front.n_mels)]
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))


@functools.lru_cache(maxsize=8)
def _offsets(front: FrontEnd, spec: MelSpec) -> torch.Tensor:
    """(M,): matched log-mel minus converted log-mel, the mean of each band over four seconds of white noise. The noise
    has the spec's rate, so that the resampler is part of what is measured."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4 * spec.sample_rate // spec.hop * spec.hop, generator=generator) * 0.1
    matched = log_mel(noise[None], spec)[0, 0]
    converted = _convert_shape(analyse(noise, spec.sample_rate, front), len(matched), front, spec)
    return (matched - converted).mean(dim=0)
