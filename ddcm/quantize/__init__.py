"""Quantizers: one contract (``base``), one file each."""

from ddcm.quantize.base import Quantized, Quantizer
from ddcm.quantize.hard import HardQuantizer
from ddcm.quantize.projected import ProjectedQuantizer
from ddcm.quantize.residual import ResidualQuantizer
from ddcm.quantize.soft import SoftQuantizer

QUANTIZERS: dict[str, type[Quantizer]] = {
    "hard": HardQuantizer, "soft": SoftQuantizer, "residual": ResidualQuantizer, "projected": ProjectedQuantizer,
}  # fmt: skip
__all__ = [
    "QUANTIZERS", "HardQuantizer", "ProjectedQuantizer", "Quantized", "Quantizer", "ResidualQuantizer", "SoftQuantizer",
]  # fmt: skip
