"""Both halves in one file: a trajectory, then codes of a residual codebook for what it leaves of the latent.

The residual z - z_hat of a trajectory is smaller and whiter than z. A codebook that was fitted on z has levels for such
residuals: from its second or third level on, what is left of z is white as well. So the codes are those of some levels
in a row, from the one that serves the recording best, and each window has a gain that brings its residual to their
size. The payload is

    trajectories of all windows, as in a turbo file | gain of each window (1 byte) | codes of all windows, as in vq

The decoder adds both parts. Codes and gains do not depend on z_hat, which differs in its last bits between machines.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.codes import vq
from ddcm.codec.codes.choice import CodeSearch, choose_codes
from ddcm.codec.header import BANDS, Header
from ddcm.codec.model import LatentDiffusion
from ddcm.codec.targets import Targets
from ddcm.codec.trajectory import fixed_arithmetic
from ddcm.errors import UserError
from ddcm.quantize.pretrained import Codebook
from ddcm.quantize.residual import ResidualQuantizer

# See benchmarks/hybrid.py.
FROM_KBPS = 5.0  # of a file with levels; below, a trajectory alone is nearer
TRAJECTORY_KBPS = 0.75  # of such a file, at least; what is above pays for levels
CELLS_PER_S = 25 * BANDS
GAIN_STEPS, GAIN_ONE = 16, 128  # values of the byte in an octave; the value that leaves the levels as they are
TRIED = range(-16, 17, 4)  # gains that the encoder tries, around the one that makes deviations equal


def has_too_low_a_rate(settings: CodecSettings) -> bool:
    """Whether a file of mode hybrid would code no levels, and so be one of turbo."""
    return settings.mode == "hybrid" and settings.levels is None and settings.rate_kbps < FROM_KBPS


def count_levels(settings: CodecSettings, codebook: Codebook) -> int:
    """Levels of the codebook that mode vq or hybrid codes; 0: the rate is too low for any. Raises UserError: more than
    the codebook has, or a codebook without levels for hybrid."""
    known = codebook.quantizer.num_quantizers
    levels = known if settings.levels is None else settings.levels
    quantizer = codebook.quantizer if settings.mode == "vq" else require_residual(codebook)
    if not 1 <= levels <= known:
        raise UserError(f"levels {levels} is outside [1, {known}], what the codebook has")
    if settings.mode == "hybrid" and settings.levels is None:
        level_kbps = CELLS_PER_S * math.log2(quantizer.codebook_size) / 1000
        fitting = min(int((settings.rate_kbps - TRAJECTORY_KBPS) / level_kbps), known)
        levels = 0 if has_too_low_a_rate(settings) else fitting
    return levels


def estimate_code_bytes(header: Header) -> int:
    """Bytes that gains and codes of a hybrid file will take, about; 0 for another file."""
    if header.mode != "hybrid":
        return 0
    windows, (_, frames, bands) = len(header.layout.starts), header.latent_shape
    codes = windows * frames * bands * header.levels
    return windows + round(codes * math.log2(header.atoms) / 8)


def require_residual(codebook: Codebook) -> ResidualQuantizer:
    """The quantizer of a residual codebook. Raises UserError: it is another."""
    if not isinstance(codebook.quantizer, ResidualQuantizer):
        raise UserError("mode hybrid codes with a residual codebook, such as one of configs/residual.yaml")
    return codebook.quantizer


def take_levels(quantizer: ResidualQuantizer, header: Header, gain: int = GAIN_ONE) -> ResidualQuantizer:
    """The levels of a file, for windows whose gain is this byte."""
    return quantizer.take(header.first_level, header.levels, 2.0 ** ((gain - GAIN_ONE) / GAIN_STEPS))


def choose_first_level(quantizer: ResidualQuantizer, header: Header, residual: torch.Tensor) -> Header:
    """The header with the levels that come nearest to a residual (1, C, L, F), each at its best gain."""
    firsts = range(quantizer.num_quantizers - header.levels + 1)
    headers = [replace(header, first_level=first) for first in firsts]
    return min(headers, key=lambda header: _try_gains(quantizer, header, residual)[0])


def choose_gain(quantizer: ResidualQuantizer, header: Header, residual: torch.Tensor) -> int:
    """The gain at which the levels come nearest to a residual (1, C, L, F)."""
    return _try_gains(quantizer, header, residual)[1]


def _try_gains(quantizer: ResidualQuantizer, header: Header, residual: torch.Tensor) -> tuple[float, int]:
    """(least error, its gain)"""
    ratio = residual.square().mean().sqrt() / quantizer.scales[header.first_level]
    middle = GAIN_ONE + round(float(GAIN_STEPS * ratio.clamp(min=1e-6).log2()))

    def error(gain: int) -> float:
        part = take_levels(quantizer, header, gain)
        return float((part.decode(part.encode(residual)) - residual).square().mean())

    return min((error(gain), gain) for gain in {min(max(middle + step, 0), 255) for step in TRIED})


class CodesWriter:
    """Codes what trajectories leave, window after window. The first one chooses the levels."""

    def __init__(self, header: Header, model: LatentDiffusion, codebook: Codebook, rate_weight: float):
        self.header, self._model, self._how = header, model, CodeSearch(rate_weight)
        self._quantizer, self._gains = require_residual(codebook), bytearray()
        self._encoder: vq.Encoder | None = None

    def write(self, base: torch.Tensor, targets: Targets) -> torch.Tensor:
        """The end of a window's trajectory and its targets -> z (1, C, L, F) as the decoder will get it."""
        with fixed_arithmetic():
            residual = targets.z.to(base) - base
            if self._encoder is None:
                self.header = choose_first_level(self._quantizer, self.header, residual)
                levels, revision = self.header.levels, self.header.code_model
                self._encoder = vq.Encoder(take_levels(self._quantizer, self.header), levels, BANDS, revision)
            self._gains.append(choose_gain(self._quantizer, self.header, residual))
            part = take_levels(self._quantizer, self.header, self._gains[-1])
            codes = choose_codes(self._model, targets, part, self.header.levels, base, self._how)
            self._encoder.write(codes)
            return base + vq.decode_codes(codes, part).to(base.device)

    def getvalue(self) -> bytes:
        return bytes(self._gains) + (b"" if self._encoder is None else self._encoder.getvalue())


def decode(header: Header, payload: bytes, codebook: Codebook) -> Iterator[torch.Tensor]:
    """Gains and codes -> what is added to each window's latent, (1, C, L, F). Raises UserError: the payload is not what
    an encoder writes."""
    quantizer, windows = require_residual(codebook), len(header.layout.starts)
    shape = (header.levels, *header.latent_shape[1:])
    codes = vq.decode(payload[windows:], take_levels(quantizer, header), windows, shape, header.code_model)
    for gain, levels in zip(payload[:windows], codes, strict=True):
        yield vq.decode_codes(levels, take_levels(quantizer, header, gain))
