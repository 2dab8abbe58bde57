"""Perceptual metrics of optional packages: pesq, pystoi, visqol."""

import functools
import math
import warnings
from importlib.util import find_spec

import torch

from ddcm.evaluation.signal_metrics import SAMPLE_RATE, Metric


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
    api.create(mode="speech", use_lattice_model=True)
    return api


PERCEPTUAL: dict[str, tuple[tuple[str, ...], Metric]] = {
    "pesq_wb": (("pesq",), pesq_wb),
    "stoi": (("pystoi",), stoi),
    "visqol": (("visqol", "ai_edge_litert"), visqol),
}
"""Metric -> (packages that it needs, function)."""


def installed() -> dict[str, Metric]:
    """The metrics whose packages are installed."""
    return {name: function for name, (packages, function) in PERCEPTUAL.items() if all(map(find_spec, packages))}
