"""Quantizers: one contract (``base``), one file each."""

from ddcm.quantize.base import Quantized, Quantizer
from ddcm.quantize.hard import HardQuantizer

QUANTIZERS: dict[str, type[Quantizer]] = {"hard": HardQuantizer}

__all__ = ["QUANTIZERS", "HardQuantizer", "Quantized", "Quantizer"]
