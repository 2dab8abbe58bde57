"""Perceptual metrics of optional packages, all with their models inside: nothing is downloaded."""

import functools
import math
import warnings
from importlib.util import find_spec

import torch

from ddcm.audio.level import normalise_level
from ddcm.evaluation.signal_metrics import SAMPLE_RATE, Metric
from ddcm.runtime.quiet import silence_native_code


def pesq_wb(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Wide-band PESQ (ITU-T P.862.2), 1 to 4.64, higher is better; for speech. NaN where it finds no utterance."""
    import pesq

    if not reference.any() or not estimate.any():
        return math.nan  # pesq divides by the peaks
    try:
        return float(pesq.pesq(SAMPLE_RATE, reference.numpy(), estimate.numpy(), "wb"))
    except (pesq.PesqError, ZeroDivisionError, ValueError):  # silence, or clips under a quarter of a second
        return math.nan


def stoi(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Short-time objective intelligibility, up to 1, higher is better; for speech. NaN under 30 frames with sound."""
    import pystoi

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi warns when there is too little speech
        try:
            return float(pystoi.stoi(reference.double().numpy(), estimate.double().numpy(), SAMPLE_RATE))
        except (RuntimeWarning, ValueError, IndexError):
            return math.nan


def visqol(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """ViSQOL v3 in speech mode (MOS-LQO 1 to 5, higher is better), with the lattice network of the C++ program. NaN for
    silence and for clips under about half a second: it needs whole patches."""
    if not reference.any():
        return math.nan
    a, b = reference.double().numpy(), estimate.double().numpy()
    try:
        return float(_visqol().measure_from_arrays(a, b, SAMPLE_RATE).moslqo)
    except (ValueError, IndexError):  # the clip is too short
        return math.nan


@functools.cache
def _visqol():
    from visqol import VisqolApi

    api = VisqolApi()
    with silence_native_code():
        api.create(mode="speech", use_lattice_model=True)
    return api


def dnsmos(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """DNSMOS P.835, overall quality of speech (arXiv 2110.01763), 1 to 5, higher is better. It judges the estimate
    alone, at a peak of 0.5. NaN for silence."""
    from speechmos import dnsmos as model

    if not estimate.any():
        return math.nan
    return float(model.run(normalise_level(estimate)[0].numpy(), SAMPLE_RATE)["ovrl_mos"])


def speaker_similarity(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Cosine of the speaker embeddings of Resemblyzer (GE2E, arXiv 1710.10467), up to 1, higher is better; for speech.
    Silence is left out by the reference's loudness, in both alike. NaN where the reference is silent."""
    windows = [x[: len(x) // 400 * 400].reshape(-1, 400) for x in (reference, estimate)]
    power = windows[0].square().mean(dim=1)
    loud = power > 1e-4 * power.max() if len(power) else power > 0
    if not loud.any():
        return math.nan
    a, b = (_speaker_encoder().embed_utterance(_set_power(x[loud].flatten()).numpy()) for x in windows)
    return float(a @ b)


def _set_power(audio: torch.Tensor) -> torch.Tensor:
    """At -30 dB of full scale, where the encoder was trained."""
    return audio.float() * 10 ** (-30 / 20) / audio.float().square().mean().sqrt().clamp(min=1e-6)


@functools.cache
def _speaker_encoder():
    with warnings.catch_warnings(action="ignore"):  # webrtcvad, which it imports, uses pkg_resources
        from resemblyzer import VoiceEncoder

    return VoiceEncoder("cpu", verbose=False)


def word_error(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Word error rate of what pocketsphinx recognises in the estimate, against what it recognises in the reference; 0
    is best; for English speech. NaN where it recognises no word in the reference."""
    from torchmetrics.functional.text import word_error_rate

    truth, words = (_recognise(_to_16_bits(x)) for x in (reference, estimate))
    return float(word_error_rate(words, truth)) if truth else math.nan


def _to_16_bits(audio: torch.Tensor) -> bytes:
    return (normalise_level(audio)[0] * 32767).round().to(torch.int16).numpy().tobytes()


@functools.lru_cache(maxsize=2)  # of several estimates in turn, the reference stays
def _recognise(samples: bytes) -> str:
    decoder = _recogniser()
    decoder.start_utt()
    decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


@functools.cache
def _recogniser():
    from pocketsphinx import Decoder

    return Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")


PERCEPTUAL: dict[str, tuple[tuple[str, ...], Metric]] = {
    "pesq_wb": (("pesq",), pesq_wb),
    "stoi": (("pystoi",), stoi),
    "visqol": (("visqol", "ai_edge_litert"), visqol),
}
"""Metric -> (packages that it needs, function)."""
JUDGES: dict[str, tuple[tuple[str, ...], Metric]] = {
    "dnsmos": (("speechmos", "onnxruntime"), dnsmos),
    "speaker_similarity": (("resemblyzer", "pkg_resources"), speaker_similarity),
    "word_error": (("pocketsphinx", "torchmetrics"), word_error),
}
"""As ``PERCEPTUAL``: networks and a recogniser of speech, which take seconds a clip."""


def installed(judges: bool = False) -> dict[str, Metric]:
    """The metrics of ``PERCEPTUAL``, and with ``judges`` those of ``JUDGES``, whose packages are installed."""
    known = PERCEPTUAL | (JUDGES if judges else {})
    return {name: function for name, (packages, function) in known.items() if all(map(find_spec, packages))}
