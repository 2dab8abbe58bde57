"""The codebook's part in a verb: which quantizer a recipe needs, its effect on latents, the use of its atoms."""

from dataclasses import replace

import torch

from ddcm.errors import UserError
from ddcm.pipeline.output import Info
from ddcm.quantize import Quantizer
from ddcm.quantize.pretrained import Codebook
from ddcm.quantize.soft import soften
from ddcm.recipes import Recipe


def choose_quantizer(recipe: Recipe, codebook: Codebook | None) -> Quantizer | None:
    """The codebook's quantizer, if the recipe quantises. Raises UserError: there is no codebook, or none whose atoms
    can be mixed."""
    if recipe.quantizer == "none":
        return None
    if codebook is None:
        raise UserError("this recipe quantises: name a codebook with --codebook, or use --quantizer none")
    quantizer = codebook.quantizer
    if recipe.quantizer == "soft" and quantizer.atoms is None:
        raise UserError(f"a {type(quantizer).__name__} has no single codebook to mix; use --quantizer hard")
    return quantizer


def quantise(z: torch.Tensor, recipe: Recipe, quantizer: Quantizer) -> torch.Tensor:
    """z (B, C, L, F) -> its nearest atoms, whatever the quantizer was fitted as, or a soft mixture of the atoms."""
    if recipe.quantizer == "soft":
        assert quantizer.atoms is not None, "choose_quantizer() refuses others"
        return soften(z, quantizer.atoms, recipe.temperature)
    return quantizer.decode(quantizer.encode(z))


def count_codes(z: torch.Tensor, quantizer: Quantizer) -> torch.Tensor:
    """How often each atom is the nearest to a cell of z (B, C, L, F): float64 (K,)."""
    return torch.bincount(quantizer.encode(z).flatten(), minlength=quantizer.codebook_size).cpu().double()


def add_usage(info: Info, counts: torch.Tensor) -> Info:
    """``info`` with the share of atoms that occur, and the perplexity of their frequencies, by counts (K,)."""
    entropy = torch.special.entr(counts / counts.sum()).sum()
    return replace(info, usage=float((counts > 0).double().mean()), perplexity=float(entropy.exp()))
