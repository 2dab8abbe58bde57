"""Perceptual metrics of other packages, each where it is installed: pesq, pystoi, visqol."""

from __future__ import annotations

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
    """ViSQOL in its speech mode at 16 kHz (MOS-LQO 1 to 5, higher is better), by the binding of its authors."""
    from pathlib import Path

    from visqol import visqol_lib_py
    from visqol.pb2 import visqol_config_pb2

    config = visqol_config_pb2.VisqolConfig()
    config.audio.sample_rate = RATE
    config.options.use_speech_scoring = True
    models = Path(visqol_lib_py.__file__).parent / "model"
    config.options.svr_model_path = str(next(models.glob("lattice*.tflite")))
    api = visqol_lib_py.VisqolApi()
    api.Create(config)
    return float(api.Measure(reference.double().numpy(), estimate.double().numpy()).moslqo)


LISTENERS: dict[str, tuple[str, Callable[[torch.Tensor, torch.Tensor], float]]] = {
    "pesq_wb": ("pesq", pesq_wb),
    "stoi": ("pystoi", stoi),
    "visqol": ("visqol", visqol),
}
"""metric -> (package, function of two 16 kHz signals (S,))"""


def installed() -> dict[str, Callable[[torch.Tensor, torch.Tensor], float]]:
    """The metrics whose packages are there."""
    return {name: function for name, (package, function) in LISTENERS.items() if find_spec(package)}
