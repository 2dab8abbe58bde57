"""How likely codes are: the models that the encoder and the decoder of codes share. Numbers are integers.

Revision 0 is the model of version 2 and 3 of the format: usage in training, and counts of the coded symbols for each
band. In later revisions a cell may end before the last level, which leaves the rest of it zero, and a frame's even
bands come before its odd ones. From revision 2 on ``context`` predicts cells from their neighbours.
"""

from collections.abc import Iterator

import numpy as np

from ddcm.codec.codes.context import EVEN, ODD, ContextNet, FixedAtoms, advance, atom_weights, gather_inputs

PRIOR = 4096  # coded symbols that the codebook's usage stands for
OWN_BAND = 8  # weight of a band's own counts over those of all bands
COUNT = 16  # count added per coded symbol
SHARE = 1 << 15  # one, of probabilities
TRUST = 15  # of the context, in 1/16; the rest is of the counts
SURE = 4096  # one, of the probability that a cell ends
RATE = 16  # the adaptation of that probability: 1/RATE of the way with each cell


class Counts:
    """Integer frequencies (Q, F, K)."""

    def __init__(self, usage: np.ndarray | None, levels: int, bands: int, size: int):
        """``usage`` (Q, K) or more levels of it: each atom's share in training; None: not known."""
        self.shared = np.ones((levels, size), np.int64)
        if usage is not None:
            share = np.clip(usage[:levels].astype(np.float64), 0, 1)
            self.shared += np.round(share * PRIOR * COUNT).astype(np.int64)
        self.own = np.zeros((levels, bands, size), np.int64)

    def weights(self, level: int, bands: np.ndarray) -> np.ndarray:
        return self.shared[level] + OWN_BAND * self.own[level, bands]

    def update(self, level: int, bands: np.ndarray, codes: np.ndarray) -> None:
        np.add.at(self.shared[level], codes, COUNT)
        np.add.at(self.own[level], (bands, codes), COUNT)


class CountModel:
    """Revision 0: all bands of a frame at once."""

    def __init__(self, counts: Counts, bands: int):
        self._counts, self._bands = counts, np.arange(bands)

    def cells(self) -> Iterator[np.ndarray]:
        """Bands of one frame (n,), in the order of coding. Between two, each level of the cells is coded."""
        yield self._bands

    def open_cells(self) -> np.ndarray:
        """Which of these cells have not ended, as bool (n,)."""
        return np.ones(len(self._bands), bool)

    def weights(self, level: int) -> np.ndarray:
        """float32 (n, symbols), of the open cells: integers in proportion to the probabilities."""
        return self._counts.weights(level, self._bands).astype(np.float32)

    def update(self, level: int, codes: np.ndarray) -> None:
        """Take in the codes of the open cells."""
        self._counts.update(level, self._bands, codes)


class CellModel:
    """Revision 1 and later. The symbol K ends a cell."""

    def __init__(self, counts: Counts, fixed: FixedAtoms, net: ContextNet | None):
        levels, bands, self.size = counts.own.shape
        self._counts, self.fixed, self._net, self._levels = counts, fixed, net, levels
        dim = fixed.atoms.shape[2]
        self._before, self._running = np.zeros((2, bands + 4, dim)), np.zeros((bands, dim))
        self._frame = np.zeros((bands + 4, dim))
        self._lengths, self._former = np.full((2, bands + 2), levels)  # of cells, with a band at each side
        self.prediction: tuple[np.ndarray, np.ndarray] | None = None  # mean and variance (n, D) of the present cells
        start = np.full(27, 40.0) if net is None else net.stops
        self._ends = np.tile(start.astype(np.int64), (levels, 1))

    def cells(self) -> Iterator[np.ndarray]:
        bands = np.arange(len(self._running))
        self._frame[:] = 0
        for parity, group in ((EVEN, bands[::2]), (ODD, bands[1::2])):
            self._bands, self._open = group, np.ones(len(group), bool)
            beside = self._former if parity == EVEN else self._lengths
            self._near = np.stack([self._former[group + 1], beside[group], beside[group + 2]])
            if self._net is not None:
                inputs = gather_inputs(parity, group, self._before, self._running, self._frame, self.fixed.noise)
                self.prediction = self._net.predict(parity, inputs)
            self._lengths[group + 1] = self._levels
            yield group
        frame = self._frame[2:-2]
        self._running = advance(self._running, frame)
        self._before[1], self._before[0] = self._before[0], self._frame
        self._former = self._lengths.copy()

    def open_cells(self) -> np.ndarray:
        return self._open

    def weights(self, level: int) -> np.ndarray:
        bands = self._bands[self._open]
        counts = self._counts.weights(level, bands)
        shares = counts * SHARE // counts.sum(axis=1, keepdims=True)
        if self._net is not None and self.prediction is not None:
            mean, variance = (x[self._open] for x in self.prediction)
            context = atom_weights(self.fixed, level, mean - self._frame[bands + 2], variance, self._net.widen)
            shares = (TRUST * context.astype(np.int64) + (16 - TRUST) * shares) >> 4
        ends = self.ends(level)[self._open, None]
        atoms = (shares * (SURE - ends) >> 8) + 1  # below 2^19, so that float32 is exact
        return np.concatenate([atoms, SHARE * ends >> 8], axis=1).astype(np.float32)

    def ends(self, level: int) -> np.ndarray:
        """(n,): how likely each of these cells is to end before a level, in 1 / SURE."""
        return self._ends[level, self._contexts(level)]

    def _contexts(self, level: int) -> np.ndarray:
        """(n,): whether each of three neighbours ended before this level, at it, or after it."""
        return np.array([9, 3, 1]) @ (1 + np.sign(self._near - level))

    def update(self, level: int, codes: np.ndarray) -> None:
        bands, ended, contexts = self._bands[self._open], codes == self.size, self._contexts(level)[self._open]
        ends = self._ends[level]
        np.add.at(ends, contexts, (np.where(ended, SURE, 0) - ends[contexts]) // RATE)
        self._ends[level] = np.clip(ends, SURE >> 7, SURE - (SURE >> 7))
        self._counts.update(level, bands[~ended], codes[~ended])
        self._frame[bands + 2] += self.fixed.atoms[level, codes]
        self._lengths[bands[ended] + 1] = level
        self._open[np.flatnonzero(self._open)[ended]] = False
