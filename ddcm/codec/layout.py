"""Where a stream's windows lie and how many bits each has: everything that follows from the header alone."""

from __future__ import annotations

from dataclasses import dataclass

from ddcm.codec.bitstream import subset_bits
from ddcm.codec.format import Stream
from ddcm.codec.schedule import MAX_ATOMS, expand
from ddcm.errors import UserError

FRAMES, OVERLAP = 1024, 64  # mel frames: the longest window (10.24 s), and what neighbours share at least
SHORTEST = 64  # frames that a window is filled up to with silence
CHANNELS, BANDS = 8, 16  # of the latent: C and F
FEWEST = 64  # bits of a full window; fewer would let a small file stand for hours of audio


@dataclass(frozen=True)
class Layout:
    """Windows over a recording; all lengths in mel frames, multiples of four."""

    total: int
    size: int
    starts: tuple[int, ...]

    @property
    def latent_frames(self) -> int:
        return self.size // 4

    @property
    def numbers(self) -> int:
        """n, the numbers in a window's latent."""
        return CHANNELS * BANDS * self.latent_frames


def layout(samples: int, hop: int) -> Layout:
    """As few windows as it takes, of equal size, spread evenly.

    A window that overlapped more than the cross-fade needs would be paid for twice, so lengths just above a window's
    are cut into two short ones.
    """
    total = max(SHORTEST, -(-samples // (4 * hop)) * 4)
    if total <= FRAMES:
        return Layout(total, total, (0,))
    count = -(-(total - OVERLAP) // (FRAMES - OVERLAP))
    size = -(-(total + (count - 1) * OVERLAP) // (4 * count)) * 4
    starts = (4 * ((total - size) * i // (4 * (count - 1))) for i in range(count))
    return Layout(total, size, tuple(starts))


def window_bits(stream: Stream) -> int:
    """Bits that each window of a turbo or classic stream has."""
    atoms = expand(stream.schedule).atoms
    if stream.mode == "classic":
        return sum(m * stream.log2_atoms + (m - 1) * stream.coefficient_bits for m in atoms if m)
    return sum(subset_bits(1 << stream.log2_atoms, m) + m for m in atoms)


def padded_log2(numbers: int) -> int:
    """log2 of the smallest power of two that holds ``numbers``."""
    return (numbers - 1).bit_length()


def verified(stream: Stream) -> Layout:
    """The layout of a stream that was read, after checking that header and payload belong together.

    The number of windows is bound to the size of the payload, so that nothing is computed or allocated for a length
    that is only claimed.

    Raises:
        UserError: they do not.
    """
    hop = int(stream.mel[2])
    windows = max(1, -(-(-(-stream.samples // hop) - OVERLAP) // (FRAMES - OVERLAP)))
    if 8 * len(stream.payload) < windows:  # before a list of starts is made
        raise UserError(f"the .ddcm file claims {stream.samples} samples, which its payload cannot hold")
    placed = layout(stream.samples, hop)
    if stream.mode == "vq":
        return placed
    most = min(MAX_ATOMS, 1 << stream.log2_atoms)
    if any(m > most for m in expand(stream.schedule).atoms):
        raise UserError("the .ddcm file's header is damaged: more atoms in a step than there are")
    if stream.book == "hadamard" and stream.log2_atoms != padded_log2(placed.numbers):
        raise UserError("the .ddcm file's header is damaged: its codebook does not fit its windows")
    bits = window_bits(stream)
    if bits * FRAMES < FEWEST * placed.size:
        raise UserError("the .ddcm file's header is damaged: next to no bits for its length")
    if len(stream.payload) != -(-len(placed.starts) * bits // 8):
        raise UserError(f"the .ddcm file claims {stream.samples} samples, but its payload has another length")
    return placed
