"""A mel error -> the rate of the file that has it: what ``--db`` asks for.

The error falls with the logarithm of the rate, nearly along a line. So a few trials find the rate: the recording, or
four windows of a long one, is coded at a guess, then where the line through the last trials meets the error asked for.
"""

import logging
import math
from collections.abc import Callable

import torch

from ddcm.audio.layout import FRAMES
from ddcm.audio.recording import SpooledAudio
from ddcm.errors import UserError

log = logging.getLogger(__name__)

LOWEST, HIGHEST = 0.25, 16.0  # kbps
TOLERANCE_DB = 0.05
TRIALS = 8
PIECES = 4  # windows of a long recording that are tried
SLOPE = -0.9  # dB that the error changes by when the rate doubles, before any two trials are known


def find_kbps(error_at: Callable[[float], float], db: float) -> float:
    """The rate whose error is ``db``, or the trial nearest to it.

    Args:
        error_at: kbps -> mean absolute error of the decoded log-mel, in dB. It falls with the rate.

    Raises UserError: no rate up to ``HIGHEST`` has so small an error; names the smallest.
    """
    lowest, highest = math.log2(LOWEST), math.log2(HIGHEST)
    tried: dict[float, float] = {}  # log2 of kbps -> error
    octave, slope = 0.0, SLOPE
    for _ in range(TRIALS):
        tried[octave] = error = error_at(2**octave)
        if abs(error - db) <= TOLERANCE_DB:
            break
        above = [x for x in tried if tried[x] > db]  # of too low a rate
        below = [x for x in tried if tried[x] <= db]
        if above and below:
            low, high = max(above), min(below)
            recent = [y > db for y in tried.values()][-2:]
            share = (tried[low] - db) / (tried[low] - tried[high]) if len(set(recent)) > 1 else 0.5  # or one end stays
            following = low + min(max(share, 0.1), 0.9) * (high - low)
        else:
            if len(tried) > 1:
                (x1, y1), (x2, y2) = list(tried.items())[-2:]
                slope = min((y2 - y1) / (x2 - x1), SLOPE / 100)
            following = min(max(octave + (db - error) / slope, octave - 2, lowest), octave + 2, highest)
        if following in tried:  # an end of the range
            break
        octave = following
    best = min(tried, key=lambda x: abs(tried[x] - db))
    if highest in tried and tried[best] > db + TOLERANCE_DB:
        raise UserError(f"{db:g} dB cannot be reached: at {HIGHEST:g} kbps the mels are {tried[highest]:.2f} dB apart")
    if abs(tried[best] - db) > TOLERANCE_DB:
        log.warning("no file of %g dB: the nearest has %.2f dB at %.3g kbps", db, tried[best], 2**best)
    return 2**best


def cut_excerpt(audio: torch.Tensor | SpooledAudio, hop: int) -> torch.Tensor:
    """All of a short recording (S,), or ``PIECES`` windows of 10.24 s, spread evenly, one after the other."""
    size = FRAMES * hop
    if len(audio) <= PIECES * size:
        return audio[:]
    starts = [(len(audio) - size) * i // (PIECES - 1) for i in range(PIECES)]
    return torch.cat([audio[start : start + size] for start in starts])
