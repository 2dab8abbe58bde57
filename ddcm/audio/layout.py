"""Windows over a recording: how many, how long, and where each begins. Integers alone."""

import functools
from dataclasses import dataclass

FRAMES = 1024  # mel frames of the longest window: 10.24 s, what AudioLDM2 was trained on
OVERLAP = 64  # mel frames that neighbours share at least
SHORTEST = 64  # mel frames of the shortest window: a shorter recording is padded with silence


@dataclass(frozen=True)
class Layout:
    """Windows of one size; all numbers are mel frames and multiples of four."""

    total: int  # frames of the padded recording
    size: int  # frames of a window
    starts: tuple[int, ...]  # first frame of each window

    @property
    def latent_frames(self) -> int:
        """L of a window's latent"""
        return self.size // 4


@functools.lru_cache(maxsize=16)
def even_layout(samples: int, hop: int) -> Layout:
    """As few windows as possible, of equal size, spread evenly over the recording. The codec pays for each frame of
    each window, so a recording just longer than one window gets two short windows."""
    total = max(SHORTEST, -(-samples // (4 * hop)) * 4)
    if total <= FRAMES:
        return Layout(total, total, (0,))
    count = -(-(total - OVERLAP) // (FRAMES - OVERLAP))
    size = -(-(total + (count - 1) * OVERLAP) // (4 * count)) * 4
    starts = (4 * ((total - size) * i // (4 * (count - 1))) for i in range(count))
    return Layout(total, size, tuple(starts))


def fixed_layout(frames: int) -> Layout:
    """Windows of 10.24 s over a padded recording of ``frames``, or one window where that is enough. All have one shape,
    so that they can be batched. The last window ends with the recording and overlaps more."""
    if frames <= FRAMES:
        return Layout(frames, frames, (0,))
    return Layout(frames, FRAMES, (*range(0, frames - FRAMES, FRAMES - OVERLAP), frames - FRAMES))
