"""Noise codebooks, what is chosen from them, and the entropy coder of a fitted codebook's codes."""

import hashlib
import math

import pytest
import torch

from ddcm.codec import noise_codebooks, selection
from ddcm.codec.bitstream import split_evenly, subset_bits
from ddcm.codec.codes.vq import Encoder, decode
from ddcm.codec.noise_codebooks import (
    NOISE_CODEBOOKS,
    Gaussian,
    Hadamard,
    hadamard_matrix,
    normalise,
    start_noise,
)
from ddcm.quantize import Quantizer


@pytest.mark.parametrize("kind", NOISE_CODEBOOKS)
def test_correlations_and_sums_are_those_of_the_atoms(kind):
    codebook = NOISE_CODEBOOKS[kind](5, 100, 7)
    atoms = torch.stack([codebook.synthesize(1, 2, [k], [1]) for k in range(codebook.atoms)])
    assert torch.allclose(atoms.square().mean(dim=1), torch.ones(codebook.atoms))
    residual = torch.randn(100)
    (correlations,) = codebook.correlate(1, 2, residual)
    raw = atoms @ residual if kind == "hadamard" else correlations.abs() * (atoms @ residual).sign()
    assert torch.allclose(correlations, raw, atol=1e-3)
    pair = codebook.synthesize(1, 2, [3, 8], [1, -1])
    assert abs(float(pair.square().mean()) - 1) < 1e-5 and float(pair @ (atoms[3] - atoms[8])) > 0
    other = [codebook.synthesize(*place, [3], [1]) for place in ((1, 3), (2, 2))]
    assert all(abs(float(atoms[3] @ x)) < 60 for x in other), "atoms differ from step to step and window to window"


@pytest.mark.parametrize("kind", NOISE_CODEBOOKS)
def test_atoms_are_the_same_for_any_block_batch_and_dtype(kind, monkeypatch):
    codebook, residuals = NOISE_CODEBOOKS[kind](5, 100, 7), torch.randn(3, 100)
    noise, together = codebook.synthesize(1, 2, [3, 90, 8], [1, -1, 1]), codebook.correlate(1, 2, residuals)
    assert together.shape == (3, 1, 128)
    for block, dtype in ((1, torch.float64), (3, torch.float32), (1000, torch.float64)):
        monkeypatch.setattr(noise_codebooks, "BLOCK", block)
        torch.set_default_dtype(dtype)
        try:
            alone = [codebook.correlate(1, 2, row) for row in residuals]
            assert torch.equal(codebook.synthesize(1, 2, [3, 90, 8], [1, -1, 1]), noise)
        finally:
            torch.set_default_dtype(torch.float32)
        assert torch.allclose(torch.stack(alone).float(), together, atol=1e-4)


def test_noise_never_drifts():
    for codebook, golden in ((Hadamard(5, 1000, 10), "8d66496956d6b3ae"), (Gaussian(5, 1000, 10), "f2098c4916ccb486")):
        noise = torch.cat([codebook.synthesize(3, 4, [1, 500, 7], [1, -1, 1]), start_noise(5, 3, 1000)])
        assert hashlib.sha256(noise.numpy().tobytes()).hexdigest()[:16] == golden


def test_normalising_rounds_as_exact_integers_do():
    generator = torch.Generator().manual_seed(0)
    totals = [torch.randint(-300, 300, (1000,), generator=generator) for _ in range(50)]
    for total in [*totals, torch.zeros(64, dtype=torch.int64)]:
        power = int((total * total).sum())
        scale = math.sqrt(len(total) / power) if power else 0.0
        assert torch.equal(normalise(total), (total.double() * scale).float())


def test_the_codebook_works_on_any_device_without_waiting_for_it():
    """On the meta device, which has no numbers: reading one fails there."""
    codebook, residual = Hadamard(1, 1000, 10, bases=2), torch.empty(1000, device="meta")
    atoms, weights = selection.choose_largest(codebook.correlate(0, 0, residual, 4), 4)
    assert atoms.device.type == "meta" and codebook.synthesize(0, 0, atoms, weights).shape == (1000,)


def test_the_hadamard_choice_is_the_best_there_is():
    codebook, residual = Hadamard(1, 64, 6), torch.randn(64)
    atoms, weights = selection.choose_largest(codebook.correlate(0, 0, residual), 2)
    ours = float(codebook.synthesize(0, 0, atoms, weights) @ residual)
    every = [
        float(codebook.synthesize(0, 0, [a, b], [s, t]) @ residual)
        for a in range(64) for b in range(a) for s in (1, -1) for t in (1, -1)
    ]  # fmt: skip
    assert ours == pytest.approx(max(every), rel=1e-5)
    matrix = hadamard_matrix(6, residual.device)
    assert torch.equal(matrix @ matrix, 64 * torch.eye(64))


@pytest.mark.parametrize(
    "size, log2_atoms, bases, count", [(100, 7, 4, 6), (128, 7, 8, 3), (33, 6, 2, 40), (2, 1, 1, 2)]
)
def test_atoms_are_spread_over_the_bases(size, log2_atoms, bases, count):
    codebook, residual = Hadamard(3, size, log2_atoms, bases), torch.randn(size)
    correlations = codebook.correlate(1, 2, residual, count)
    used = min(bases, count)
    assert correlations.shape == (used, 1 << log2_atoms)
    atoms, weights = selection.choose_largest(correlations, count)
    assert [int((atoms >> log2_atoms == basis).sum()) for basis in range(used)] == list(split_evenly(count, used))
    rows = torch.stack([codebook.synthesize(1, 2, [int(atom)] * used, [1] + [0] * (used - 1)) for atom in atoms])
    assert torch.allclose((rows @ residual * weights), correlations.flatten()[atoms].abs(), atol=1e-3)
    total = codebook.synthesize(1, 2, atoms, weights)
    assert torch.allclose(total, normalise((rows * weights[:, None]).sum(dim=0).round().long()), atol=1e-6)
    for basis in range(used):  # none that was left is larger than one that was taken
        taken = torch.zeros(1 << log2_atoms, dtype=torch.bool)
        taken[atoms[atoms >> log2_atoms == basis] % (1 << log2_atoms)] = True
        sizes = correlations[basis].abs()
        assert taken.all() or sizes[taken].min() >= sizes[~taken].max()


def test_atoms_of_many_bases_carry_more_of_the_residual_for_their_bits():
    """At 1 kbps: some ten atoms of 8192. The share of the power that the noise explains, a bit."""
    residual, explained = torch.randn(8192, generator=torch.Generator().manual_seed(0)), {}
    for bases, count in ((1, 10), (16, 9)):
        codebook = Hadamard(0, 8192, 13, bases)
        noise = codebook.synthesize(0, 0, *selection.choose_largest(codebook.correlate(0, 0, residual, count), count))
        bits = subset_bits(8192, split_evenly(count, min(count, bases))) + count
        explained[bases] = float(torch.cosine_similarity(noise, residual, dim=0)) ** 2 / bits
    assert explained[16] > 1.08 * explained[1]


def test_pursuit_gets_nearer_with_every_atom():
    codebook, residual = Hadamard(1, 500, 9), torch.randn(500)
    along = []
    for count in (1, 3, 6):
        stages = selection.pursue(codebook, 0, 0, residual, count, 3)
        along.append(float(codebook.synthesize(0, 0, *selection.weigh_stages(stages, 3)) @ residual))
    assert along == sorted(along) and along[0] < along[-1]


def test_codes_are_coded_below_their_entropy_without_a_model():
    class Untracked(Quantizer):
        codebook_size = 64

    quantizer = Untracked()
    generator = torch.Generator().manual_seed(0)
    windows = [
        (torch.rand(3, 32, 16, generator=generator).pow(4) * 64).int().numpy() for _ in range(3)
    ]  # far from uniform
    coder = Encoder(quantizer, 3, 16)
    for codes in windows:
        coder.write(codes)
    data = coder.getvalue()
    assert all((a == b).all() for a, b in zip(decode(data, quantizer, 3, (3, 32, 16)), windows, strict=True))
    assert len(data) * 8 < 0.9 * 6 * 3 * windows[0].size
