"""Perceptual metrics of other packages, each where it is installed: pesq, pystoi, visqol."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import torch

RATE = 16000


def pesq_wb(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Wide-band PESQ (ITU-T P.862.2), 1 to 4.64, higher is better; of speech. NaN where it finds no utterance."""
    import pesq

    if not reference.any() or not estimate.any():
        return math.nan  # it would divide by their peaks
    try:
        return float(pesq.pesq(RATE, reference.numpy(), estimate.numpy(), "wb"))
    except (pesq.PesqError, ZeroDivisionError, ValueError):  # silence and clips under a quarter of a second
        return math.nan


def stoi(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Short-time objective intelligibility, up to 1, higher is better; of speech. NaN under 30 sounding frames."""
    import pystoi

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # its way to say that there was too little to judge
        try:
            return float(pystoi.stoi(reference.double().numpy(), estimate.double().numpy(), RATE))
        except (RuntimeWarning, ValueError, IndexError):
            return math.nan


def visqol(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """ViSQOL v3 in its speech mode (MOS-LQO 1 to 5, higher is better), mapped by its lattice network, as the C++
    program does by default. NaN for silence and under half a second or so: it needs whole patches."""
    if not reference.any():
        return math.nan
    try:
        result = _visqol().measure_from_arrays(reference.double().numpy(), estimate.double().numpy(), RATE)
    except (ValueError, IndexError):  # too short
        return math.nan
    return float(result.moslqo)


@functools.cache
def _visqol():
    from visqol import VisqolApi

    api = VisqolApi()
    api.create(mode="speech", use_lattice_model=True)
    return api


LISTENERS: dict[str, tuple[tuple[str, ...], Callable[[torch.Tensor, torch.Tensor], float]]] = {
    "pesq_wb": (("pesq",), pesq_wb),
    "stoi": (("pystoi",), stoi),
    "visqol": (("visqol", "ai_edge_litert"), visqol),
}
"""metric -> (packages, function of two 16 kHz signals (S,))"""


def installed() -> dict[str, Callable[[torch.Tensor, torch.Tensor], float]]:
    """The metrics whose packages are there."""
    return {name: function for name, (packages, function) in LISTENERS.items() if all(map(find_spec, packages))}
