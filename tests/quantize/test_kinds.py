"""What each quantizer has of its own: temperature, levels, projections, distances, gradients."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ddcm.quantize import HardQuantizer, ProjectedQuantizer, ResidualQuantizer, SoftQuantizer
from ddcm.quantize.base import to_cells
from ddcm.quantize.hard import rotate, straight_through
from ddcm.quantize.kmeans import find_nearest, kmeans
from ddcm.quantize.soft import CHUNK, mixture
from tests.quantize.test_base import clusters, fitted, rand

seeds = st.integers(0, 2**31)
few = settings(max_examples=30, deadline=None)


# Soft.


@few
@given(
    n=st.integers(1, 50), k=st.integers(1, 20), d=st.integers(1, 9), temperature=st.floats(0.05, 10), seed=seeds,
    distance=st.sampled_from(["euclidean", "cosine"]),
)  # fmt: skip
def test_mixture_is_the_softmax_of_distances(n, k, d, temperature, seed, distance):
    cells, codebook = rand(n, d, seed=seed).double(), rand(k, d, seed=seed + 1).double()
    a, b = (cells, codebook) if distance == "euclidean" else (F.normalize(cells), F.normalize(codebook))
    wanted = torch.softmax(-torch.cdist(a, b) / temperature, dim=1) @ codebook
    assert torch.allclose(mixture(cells, codebook, temperature, distance), wanted, atol=1e-6)


def test_mixture_becomes_the_nearest_atom_as_it_cools():
    cells, codebook = rand(500, 8, seed=0), rand(64, 8, seed=1)
    atoms = codebook[find_nearest(cells, codebook)]
    gaps = [(mixture(cells, codebook, t) - atoms).abs().mean().item() for t in (1.0, 0.1, 0.01, 1e-3, 1e-6, 0.0)]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 0.1
    assert torch.equal(mixture(cells, codebook, 1e-30), atoms) and gaps[-1] == 0


def test_mixture_has_the_gradients_of_the_plain_formula_over_chunks():
    grads = []
    for mix in (mixture, lambda x, e, t: torch.softmax(-torch.cdist(x, e) / t, dim=1) @ e):
        cells, codebook = rand(CHUNK + 3, 4, seed=0).requires_grad_(), rand(10, 4, seed=1).requires_grad_()
        mix(cells, codebook, 0.7).square().sum().backward()
        grads.append((cells.grad, codebook.grad))
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(*grads, strict=True))


def test_temperature_falls_on_schedule_and_stays_in_the_export():
    quantizer = SoftQuantizer(16, 8, temperature=1.0, final_temperature=0.01, anneal_steps=10)
    seen = [float(quantizer(clusters(1, seed=i)).metrics["temperature"]) for i in range(14)]
    assert seen[0] == 1 and seen[5] == pytest.approx(0.1) and seen[10:] == pytest.approx([0.01] * 4)
    again = SoftQuantizer(**quantizer.config)
    again.load_state_dict(quantizer.state_dict())
    assert float(again.temperature_now) == pytest.approx(0.01)
    with pytest.raises(ValueError, match="final_temperature"):
        SoftQuantizer(16, 8, temperature=0.1, final_temperature=1.0)


def test_soft_mixes_better_than_one_atom_and_annealed_codes_stand_alone():
    held_out = clusters(8, seed=10_000)
    errors = {}
    for name, quantizer in (
        ("warm", SoftQuantizer(24, 8)),
        ("annealed", SoftQuantizer(24, 8, final_temperature=0.01, anneal_steps=200)),
        ("hard", HardQuantizer(24, 8)),
    ):
        fitted(quantizer, steps=300)
        errors[name, "mixture"] = F.mse_loss(quantizer.eval()(held_out).z, held_out).item()
        errors[name, "codes"] = F.mse_loss(quantizer.decode(quantizer.encode(held_out)), held_out).item()
    assert errors["warm", "mixture"] < errors["hard", "mixture"]
    assert errors["annealed", "codes"] < 1.1 * errors["hard", "codes"] < errors["warm", "codes"]


# Residual.


def test_each_level_brings_the_error_down_and_prefixes_are_codes():
    z = rand(4, 8, 16, 16, seed=0)
    quantizer = ResidualQuantizer(4, HardQuantizer(64, 8))
    quantizer.initialise(to_cells(z, 8))
    codes = quantizer.eval().encode(z)
    errors = [F.mse_loss(quantizer.decode(codes[:, :n]), z).item() for n in (1, 2, 3, 4)]
    assert all(later < 0.75 * earlier for earlier, later in pairwise(errors))
    first = HardQuantizer(64, 8)
    first.initialise(to_cells(z, 8) / z.std())
    assert errors[0] == pytest.approx(F.mse_loss(first.eval()(z / z.std()).z * z.std(), z).item(), rel=1e-4)
    for wrong in (codes[:, :0], torch.cat([codes, codes], dim=1)):
        with pytest.raises(ValueError, match="1 to 4 levels"):
            quantizer.decode(wrong)


def test_residual_levels_all_learn_at_one_rate():
    quantizer = ResidualQuantizer(3, HardQuantizer(16, 8))
    data = [rand(4, 8, 16, 16, seed=i) for i in range(40)]
    quantizer.initialise(to_cells(data[0][:1], 8))
    before = [F.mse_loss(quantizer.eval().decode(quantizer.encode(data[-1])[:, :n]), data[-1]) for n in (1, 2, 3)]
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)
    quantizer.train()
    for z in data[:-1]:
        optimizer.zero_grad()
        sum(quantizer(z).losses.values()).backward()
        optimizer.step()
    after = [F.mse_loss(quantizer.eval().decode(quantizer.encode(data[-1])[:, :n]), data[-1]) for n in (1, 2, 3)]
    assert all(b > a for b, a in zip(before, after, strict=True))


def test_silence_has_a_residual_of_zero_and_no_nan():
    quantizer = ResidualQuantizer(3, HardQuantizer(4, 8))
    z = torch.zeros(1, 8, 4, 4)
    quantizer.initialise(to_cells(z, 8))
    assert torch.isfinite(quantizer(z).z).all() and quantizer.eval()(z).z.abs().max() < 0.01


# Projected.


def test_projection_starts_on_the_principal_axes():
    flat = torch.cat([rand(500, 3, seed=0) * 3, rand(500, 5, seed=1) * 0.01], dim=1)
    turned = flat @ torch.linalg.qr(rand(8, 8, seed=2))[0] + 5
    quantizer = ProjectedQuantizer(HardQuantizer(16, 3), 8)
    quantizer.initialise(turned)
    weight = quantizer.project_in.weight
    assert torch.allclose(weight @ weight.T, torch.eye(3), atol=1e-5)
    assert torch.allclose(quantizer.project_out(quantizer.project_in(turned)), turned, atol=0.1)


def test_commitment_moves_what_comes_before_the_codebook():
    quantizer = ProjectedQuantizer(HardQuantizer(16, 4), 8)
    quantizer(clusters(1)).losses["commitment"].backward()
    assert quantizer.project_in.weight.grad.abs().sum() > 0 and quantizer.project_out.weight.grad is None
    with pytest.raises(ValueError, match="cannot fill"):
        ProjectedQuantizer(HardQuantizer(16, 9), 8)


# Distances and gradients.


def test_cosine_takes_the_nearest_direction_and_keeps_lengths():
    codebook = torch.tensor([[10.0, 0.0], [0.0, 0.1]])
    cells = torch.tensor([[0.1, 0.3], [1.0, 0.9], [6.0, 50.0]])
    assert find_nearest(cells, codebook, "cosine").tolist() == [1, 0, 1]
    assert find_nearest(cells, codebook).tolist() == [1, 1, 0]
    assert kmeans(cells, 1, distance="cosine")[0].tolist() == pytest.approx(cells.mean(0).tolist())


@few
@given(n=st.integers(1, 20), d=st.integers(2, 9), seed=seeds)
def test_rotation_has_the_values_of_the_atoms_and_turns_gradients(n, d, seed):
    cells, atoms = rand(n, d, seed=seed).requires_grad_(), rand(n, d, seed=seed + 1)
    out = rotate(cells, atoms)
    assert torch.allclose(out, atoms, rtol=1e-3, atol=1e-3)
    # A gradient along the atom comes back along the cell, scaled as the lengths are.
    (out * F.normalize(atoms, dim=1)).sum().backward()
    ratio = atoms.norm(dim=1, keepdim=True) / cells.detach().norm(dim=1, keepdim=True)
    assert torch.allclose(cells.grad, F.normalize(cells.detach(), dim=1) * ratio, rtol=1e-2, atol=1e-2)


def test_where_no_rotation_is_defined_gradients_go_straight():
    cells = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
    atoms = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    for way in (rotate, straight_through):
        cells.grad = None
        out = way(cells, atoms)
        out.sum().backward()
        assert torch.equal(out, atoms) and torch.equal(cells.grad, torch.ones(2, 2))
