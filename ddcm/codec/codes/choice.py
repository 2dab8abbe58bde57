"""The encoder's choice of codes of a fitted codebook. Nothing of it is in the file: a decoder reads codes.

The codes are first chosen for the latent, then improved for the decoded mel (analysis by synthesis). Around the present
latent, half the squared error of the mel is its gradient plus a curvature, which is taken as diagonal and in proportion
to the posterior's weights. In that model each cell's best codes follow from one search. A part of the cells moves at a
time, since neighbours share the mel. A move that makes the mel worse than its bits are worth is taken back, and the
curvature raised.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from ddcm.codec.codes.context import ONE
from ddcm.codec.codes.model import CellModel
from ddcm.codec.codes.search import WIDTH, Rates, estimate_rates, search
from ddcm.codec.codes.vq import choose_revision, decode_codes, make_cell_model, to_levels
from ddcm.codec.model import LatentDiffusion
from ddcm.codec.targets import Targets, measure_mel
from ddcm.quantize.base import Quantizer, to_cells

STEPS = 12  # searches for the decoded mel
FIRST = (
    2.0  # the first curvature over the measured one: a step towards the mel is steeper than one away from the latent
)
LEAST = 0.2  # curvature at least, over that of a step as long as the error of the latent
MOVING = 0.5  # share of the cells that may move at a time
CALMER, BOLDER = 1.5, 0.8  # factors of the curvature after a failure and after a success
ROUNDS = 2  # searches for the latent, each with the rates that follow from the one before
REFRESH = 6  # moves after which the rates are estimated again


@dataclass(frozen=True)
class CodeSearch:
    """How codes are chosen."""

    rate_weight: float = 1.0
    """how much a bit counts against the error; 1: the slope of high-rate theory at the last level; 0: not at all, and
    no cell ends early"""
    width: int = WIDTH
    """beginnings of a cell that the beam search keeps at each level"""
    steps: int = STEPS
    """searches for the decoded mel"""
    latent_digest: str = ""
    """the latent space whose context model codes the codes; empty: none does"""


def choose_codes(
    model: LatentDiffusion, targets: Targets, quantizer: Quantizer, levels: int, base: torch.Tensor | None = None,
    how: CodeSearch = CodeSearch(),
) -> np.ndarray:  # fmt: skip
    """Codes int32 (levels, L, F) of one window, as ``vq.decode_codes`` reads them. The code K ends a cell.

    Args:
        targets: of the window; ``mel_weight`` 0 chooses for the latent alone.
        base: a latent (1, C, L, F) that the codes are added to; None: zero.
    """
    targets = targets.to(model.device)
    base = torch.zeros_like(targets.z) if base is None else base
    revision = choose_revision(quantizer, how.latent_digest)
    if quantizer.level_atoms is None:
        return to_levels(quantizer.encode(targets.z - base))[:levels]
    atoms = quantizer.level_atoms.detach()[:levels]
    return _Window(model, targets, quantizer, atoms, base, how, revision).choose()


class _Window:
    """What the choice of one window's codes needs."""

    def __init__(
        self, model: LatentDiffusion, targets: Targets, quantizer: Quantizer, atoms: torch.Tensor, base: torch.Tensor,
        how: CodeSearch, revision: int,
    ):  # fmt: skip
        self.model, self.targets, self.quantizer, self.base, self.how = model, targets, quantizer, base, how
        self.rest, self.atoms, self.revision = targets.z - base, atoms.to(base.device), revision
        self.weights = targets.weights / targets.weights.mean()
        self.price = how.rate_weight * bit_price(self.new_model()) if how.rate_weight else 0.0

    def new_model(self) -> CellModel:
        levels, bands = len(self.atoms), self.rest.shape[-1]
        return make_cell_model(self.quantizer, levels, bands, self.revision, self.how.latent_digest)

    def search(self, x: torch.Tensor, rates: Rates | None, price: float) -> tuple[np.ndarray, torch.Tensor]:
        """Codes (Q, L, F) nearest to x (1, C, L, F), and bits (L, F)."""
        dim, shape = self.atoms.shape[2], x.shape[2:]
        cells, weights = to_cells(x, dim), to_cells(self.weights, dim)
        codes, bits = search(cells, weights, self.atoms, rates, price, self.how.width)
        return codes.T.reshape(-1, *shape).cpu().numpy().astype(np.int32), bits.reshape(shape)

    def rates(self, codes: np.ndarray) -> Rates | None:
        return estimate_rates(codes, self.new_model(), self.rest.device) if self.price else None

    def choose(self) -> np.ndarray:
        codes, bits = self.search(self.rest, None, 0.0)
        rates = None
        for _ in range(ROUNDS if self.price else 0):
            rates = self.rates(codes)
            codes, bits = self.search(self.rest, rates, self.price)
        return self.improve(codes, bits, rates) if self.targets.mel_weight and self.how.steps else codes

    def improve(self, codes: np.ndarray, bits: torch.Tensor, rates: Rates | None) -> np.ndarray:
        """Codes whose decoded mel is nearer, for their bits."""
        generator = torch.Generator().manual_seed(0)
        z = self.base + decode_codes(codes, self.quantizer)
        descent, half_square = measure_mel(self.model, z, self.targets.mels)
        error = float(half_square)
        least = 0.5 * float((self.model.decode(self.targets.z).float() - self.targets.mels).square().sum())
        away = float((self.weights * (self.targets.z - z).square()).sum()) + 1e-9
        steepness = float((descent.square() / self.weights).sum()) + 1e-9
        start = max(2 * (error - least) / away, LEAST * math.sqrt(steepness / away))
        curvature = FIRST * start
        bit = self.price * start / 2  # of half the squared error
        for step in range(self.how.steps):
            if rates is not None and step and step % REFRESH == 0:
                rates = self.rates(codes)
            x = z - self.base + descent / (curvature * self.weights)
            new, new_bits = self.search(x, rates, self.price * start / curvature)
            stays = torch.rand(bits.shape, generator=generator) >= MOVING
            new, new_bits = np.where(stays.numpy(), codes, new), torch.where(stays.to(bits.device), bits, new_bits)
            new_z = self.base + decode_codes(new, self.quantizer)
            new_descent, half_square = measure_mel(self.model, new_z, self.targets.mels)
            new_error = float(half_square)
            if new_error + bit * float(new_bits.sum()) < error + bit * float(bits.sum()):
                codes, bits, z, descent, error = new, new_bits, new_z, new_descent, new_error
                curvature *= BOLDER
            else:
                curvature *= CALMER
        return codes


def bit_price(model: CellModel) -> float:
    """What a bit saves of a cell's squared error at the last level, by high-rate theory: the error of D numbers is in
    proportion to 2^(-2 R / D) for R bits."""
    rest = model.fixed.rest[-1] / (ONE * ONE)
    return 2 * math.log(2) * float(rest.mean())
