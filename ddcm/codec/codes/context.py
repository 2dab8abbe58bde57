"""What the decoded neighbours of a cell say about it: a small network, computed in integers.

Encoder and decoder must have the same probabilities on every machine. So all numbers are integers. They are kept in
float64, where sums and products below 2^53 are exact in any order, and a quotient is the same everywhere.

The network sees cells that are decoded already: two frames before, a running mean, and for odd bands the two bands
beside, since a frame's even bands come first. It gives a mean and a variance for each number of the cell. An atom of
a level is as likely as its usage times the density at what it makes of the cell. Trained by
``benchmarks.code_context`` for one latent space, and good for any codebook of it.
"""

import functools
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np

ONE = 256  # 1.0 of latents and activations
WEIGHT = 4096  # 1.0 of the network's weights
FOLDER = Path(__file__).with_name("contexts")
EVEN, ODD = "even", "odd"
MOST = 1 << 20  # of an activation
RUNNING = 8  # frames of the running mean
LOG = 32  # steps of a logarithm (base e) in the tables
BELOW, ABOVE = -8, 4  # natural logarithms that a variance can have
LEAST = 64  # variance, in 1 / ONE^2
RANGE = 12 * ONE  # of a difference


def _table(first: int, last: int, per_unit: int, scale: int) -> np.ndarray:
    """scale * exp(i / per_unit), rounded, for i in [first, last). Decimal rounds alike everywhere."""
    values = (scale * (Decimal(i) / per_unit).exp() for i in range(first, last))
    return np.array([float(round(value)) for value in values])


@functools.cache
def _variances() -> np.ndarray:
    return _table(BELOW * LOG, ABOVE * LOG + 1, LOG, ONE * ONE)


@functools.cache
def _densities() -> np.ndarray:
    """2^20 exp(-i / LOG)."""
    return _table(-14 * LOG, 1, LOG, 1 << 20)[::-1].copy()


@dataclass(frozen=True)
class FixedAtoms:
    """A codebook in integers."""

    atoms: np.ndarray
    """(Q, K + 1, D), in 1 / ONE; the last is zero: the cell ends"""
    usage: np.ndarray
    """(Q, K), in 2^-16, at least 1"""
    rest: np.ndarray
    """(Q, D): variance that the levels after this one leave, in 1 / ONE^2"""

    @property
    def noise(self) -> int:
        """The size of the error of a cell, as an input of the network."""
        return 16 * int(self.rest[-1].mean()).bit_length()


def fix_atoms(atoms: np.ndarray, usage: np.ndarray) -> FixedAtoms:
    """Atoms (Q, K, D) and their usage (Q, K), float32. What is beyond the last level is estimated as in high-rate
    theory: K atoms in D dimensions leave K^(-2 / D) of the variance."""
    levels, size, dim = atoms.shape
    whole = np.zeros((levels, size + 1, dim))
    whole[:, :size] = np.clip(np.round(atoms.astype(np.float64) * ONE), -RANGE, RANGE)
    share = np.round(np.clip(usage.astype(np.float64), 0, 1) * 65536) + 1
    total = share.sum(axis=1)[:, None]
    mean = np.floor((share[..., None] * whole[:, :size]).sum(axis=1) / total)
    square = np.floor((share[..., None] * whole[:, :size] ** 2).sum(axis=1) / total)
    variance = np.maximum(square - mean**2, 1)
    left = np.floor(variance[-1] * round(256 * size ** (-2 / dim)) / 256)
    after = np.cumsum(np.concatenate([left[None], variance[:0:-1]]), axis=0)[::-1]
    return FixedAtoms(whole, share, np.maximum(after, 1))


@dataclass(frozen=True)
class ContextNet:
    layers: dict[str, list[tuple[np.ndarray, np.ndarray]]]
    """of even and odd bands: weights (in, out) and biases (out,)"""
    widen: float
    """of ``FixedAtoms.rest``, in 1 / ONE"""
    stops: np.ndarray
    """(27,): how likely a cell ends, by its neighbours, in 1 / 4096"""

    def predict(self, parity: str, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (n, I) -> means and variances (n, D), in 1 / ONE and 1 / ONE^2."""
        x, layers = inputs, self.layers[parity]
        for number, (weight, bias) in enumerate(layers, 1):
            x = np.floor((x @ weight + bias) / WEIGHT)
            if number < len(layers):
                x = np.clip(x, 0, MOST)
        mean, log = np.split(x, 2, axis=-1)
        step = np.clip(np.floor(log * LOG / ONE), BELOW * LOG, ABOVE * LOG) - BELOW * LOG
        return np.clip(mean, -RANGE, RANGE), _variances()[step.astype(np.int64)]


def load_context(digest: str, revision: int) -> ContextNet:
    """Raises OSError: there is none for this latent space."""
    with np.load(FOLDER / f"{digest}-{revision}.npz") as data:
        layers: dict = {
            parity: [(data[f"{parity}.{i}.weight"].astype(float), data[f"{parity}.{i}.bias"].astype(float))
                     for i in range(3)] for parity in (EVEN, ODD)
        }  # fmt: skip
        return ContextNet(layers, float(data["widen"]), data["stops"].astype(float))


def find_revision(digest: str) -> int:
    """The newest revision of the network for this latent space; 0: there is none."""
    return max((int(path.stem.rpartition("-")[2]) for path in FOLDER.glob(f"{digest}-*.npz")), default=0)


def gather_inputs(
    parity: str, bands: np.ndarray, before: np.ndarray, running: np.ndarray, frame: np.ndarray, noise: int
) -> np.ndarray:
    """Inputs (n, I) of the network for ``bands`` (n,).

    Args:
        before: the two frames before, (2, F + 4, D), the nearer first, with two zero bands at each side.
        running: mean of all frames before, (F, D).
        frame: this frame, (F + 4, D); of it only the bands beside an odd one are read.
    """
    parts = [before[0, bands + 2 + step] for step in (-2, -1, 0, 1, 2)]
    parts += [before[1, bands + 2 + step] for step in (-1, 0, 1)]
    parts.append(running[bands])
    one_hot = np.zeros((len(bands), len(running)))
    one_hot[np.arange(len(bands)), bands] = ONE
    parts += [one_hot, np.full((len(bands), 1), float(noise))]
    if parity == ODD:
        parts += [frame[bands + 1], frame[bands + 3]]
    return np.concatenate(parts, axis=1)


def advance(running: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The running mean after a frame (F, D)."""
    return running + np.floor((frame - running) / RUNNING)


def atom_weights(fixed: FixedAtoms, level: int, rest: np.ndarray, variance: np.ndarray, widen: float) -> np.ndarray:
    """(n, K): how likely each atom is, in 2^-15. ``rest`` (n, D) is the predicted mean minus what the cell has."""
    width = np.maximum(variance + np.floor(fixed.rest[level] * widen / ONE), LEAST)
    inverse = np.floor((1 << 30) / width)
    away = np.clip(rest[:, None] - fixed.atoms[level, :-1], -RANGE, RANGE)
    energy = np.einsum("nkd,nd->nk", away * away, inverse)
    steps = np.floor(energy / ((1 << 31) // LOG))  # half the energy, in steps of the table
    steps -= steps.min(axis=1, keepdims=True)
    densities = _densities()
    weights = fixed.usage[level] * densities[np.minimum(steps, len(densities) - 1).astype(np.int64)]
    return np.floor(weights * (1 << 15) / weights.sum(axis=1, keepdims=True))
