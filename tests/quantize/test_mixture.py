"""Soft quantisation: the formula, its two ends, its memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddcm.quantize import HardQuantizer
from ddcm.quantize.soft import CHUNK, soften


def test_is_the_formula():
    z, atoms = torch.randn(2, 8, 3, 4), torch.randn(17, 8)
    cells = z.movedim(1, -1).reshape(-1, 8)
    weights = torch.softmax(-torch.cdist(cells, atoms) / 0.7, dim=-1)
    wanted = (weights @ atoms).reshape(2, 3, 4, 8).movedim(-1, 1)
    assert torch.allclose(soften(z, atoms, 0.7), wanted, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40))
def test_temperature_zero_is_the_hard_quantizer(seed, size):
    generator = torch.Generator().manual_seed(seed)
    quantizer = HardQuantizer(codebook_size=size).eval()
    quantizer.codebook.data.copy_(torch.randn(size, 8, generator=generator).round())  # with ties
    z = torch.randn(2, 8, 5, 3, generator=generator).round()
    assert torch.equal(soften(z, quantizer.codebook, 0.0), quantizer(z).z)


def test_small_temperatures_approach_it_and_large_ones_the_mean():
    z, atoms = torch.randn(1, 8, 20, 16), torch.randn(64, 8)
    hard = soften(z, atoms, 0.0)
    gaps = [float((soften(z, atoms, t) - hard).abs().mean()) for t in (1.0, 0.1, 0.01, 1e-5)]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 1e-3
    assert torch.isfinite(soften(z, atoms, 1e-38)).all()
    mean = atoms.mean(dim=0)[None, :, None, None].expand(z.shape)
    assert torch.allclose(soften(z, atoms, 1e6), mean, atol=1e-3)


def test_chunks_do_not_show():
    z, atoms = torch.randn(1, 8, CHUNK + 7), torch.randn(16, 8)
    whole = soften(z, atoms, 1.0)
    parts = torch.cat([soften(part, atoms, 1.0) for part in z.split(1000, dim=2)], dim=2)
    assert torch.allclose(whole, parts, atol=1e-6)


def test_refusals_and_dtype():
    atoms = torch.randn(4, 8)
    for bad in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature"):
            soften(torch.zeros(1, 8, 2), atoms, bad)
    with pytest.raises(ValueError, match="atoms of 8"):
        soften(torch.zeros(1, 4, 2), atoms, 1.0)
    assert soften(torch.zeros(1, 8, 2, dtype=torch.float16), atoms, 1.0).dtype == torch.float16
