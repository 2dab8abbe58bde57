"""The contract of quantizers, on random shapes, sizes and dtypes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ddcm.quantize import HardQuantizer, ProjectedQuantizer, Quantizer, ResidualQuantizer, SoftQuantizer
from ddcm.quantize.base import to_cells
from ddcm.quantize.kmeans import CHUNK, find_nearest, kmeans
from ddcm.quantize.spec import from_spec, to_spec

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
sizes = st.integers(1, 40)
seeds = st.integers(0, 2**31)
few = settings(max_examples=40, deadline=None)
# All whose codes say everything: soft ones only where they have become hard.
KINDS = {
    "hard": lambda k, d: HardQuantizer(k, d),
    "hard-ema": lambda k, d: HardQuantizer(k, d, learn="ema"),
    "hard-cosine": lambda k, d: HardQuantizer(k, d, distance="cosine"),
    "hard-rotation": lambda k, d: HardQuantizer(k, d, gradient="rotation"),
    "soft-at-0": lambda k, d: SoftQuantizer(k, d, temperature=0.0),
    "soft-near-0": lambda k, d: SoftQuantizer(k, d, temperature=1e-30),
    "residual": lambda k, d: ResidualQuantizer(3, HardQuantizer(k, d)),
    "residual-ema": lambda k, d: ResidualQuantizer(2, HardQuantizer(k, d, learn="ema")),
    "residual-soft": lambda k, d: ResidualQuantizer(2, SoftQuantizer(k, d, 0.3, 0.01, anneal_steps=50)),
    "projected": lambda k, d: ProjectedQuantizer(HardQuantizer(k, -(-d // 2)), d),
    "projected-residual": lambda k, d: ProjectedQuantizer(ResidualQuantizer(2, HardQuantizer(k, d)), d),
}


def rand(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clusters(count: int, atoms: int = 32, dim: int = 8, seed: int = 0) -> torch.Tensor:
    """Latents z (B, D, 16, 16) around ``atoms`` centres, which a codebook can find."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(atoms, dim, generator=torch.Generator().manual_seed(99))
    which = torch.randint(atoms, (count, 16, 16), generator=generator)
    z = centres[which] + 0.3 * torch.randn(count, 16, 16, dim, generator=generator)
    return z.movedim(-1, 1)


def fitted(quantizer: Quantizer, steps: int = 150) -> tuple[float, float]:
    """Held-out error before and after steps on clusters."""
    held_out = clusters(8, seed=10_000)
    quantizer.initialise(to_cells(clusters(1, seed=1), 8))
    before = F.mse_loss(quantizer.eval()(held_out).z, held_out).item()
    learned = [p for p in quantizer.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=0.01) if learned else None
    quantizer.train()
    for step in range(steps):
        losses = quantizer(clusters(4, seed=step)).losses
        if optimizer:
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
    return before, F.mse_loss(quantizer.eval()(held_out).z, held_out).item()


@few
@given(n=st.integers(0, 300), k=sizes, d=st.integers(1, 16), seed=seeds)
def test_nearest_is_brute_force(n, k, d, seed):
    # Small integers: every product and sum is exact, so ties are real ties.
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(-3, 4, (n, d), generator=generator).float()
    codebook = torch.randint(-3, 4, (k, d), generator=generator).float()
    distances = (cells[:, None] - codebook[None]).square().sum(dim=2)
    lowest = (distances == distances.amin(dim=1, keepdim=True)).int().argmax(dim=1)
    assert torch.equal(find_nearest(cells, codebook), lowest)


def test_ties_go_to_the_lowest_index_across_chunks():
    codebook = torch.ones(7, 8)
    assert not find_nearest(rand(CHUNK + 5, 8, seed=0), codebook).any()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(
    b=st.integers(1, 3), length=st.integers(1, 9), bands=st.integers(1, 16), k=sizes, d=st.integers(1, 12),
    dtype=st.sampled_from(DTYPES), seed=seeds,
)  # fmt: skip
def test_eval_output_is_decode_of_codes(kind, b, length, bands, k, d, dtype, seed):
    quantizer = KINDS[kind](k, d)
    quantizer.initialise(rand(64, d, seed=seed + 1), seed=seed)
    quantizer.eval()
    z = rand(b, d, length, bands, seed=seed).to(dtype)
    out = quantizer(z)
    levels = () if quantizer.num_quantizers == 1 else (quantizer.num_quantizers,)
    assert out.z.shape == z.shape and out.z.dtype == dtype and out.codes.shape == (b, *levels, length, bands)
    assert torch.equal(out.codes, quantizer.encode(z))
    assert torch.equal(out.z, quantizer.decode(out.codes).to(dtype)) and torch.equal(out.z_q_codebook, out.z)
    assert 1 - 1e-4 <= out.perplexity <= k * (1 + 1e-4) and 0 < out.usage <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_eval_leaves_everything_as_it_is(kind):
    quantizer = KINDS[kind](16, 8).eval()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(clusters(2))
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_spec_builds_the_same_shape(kind):
    quantizer = KINDS[kind](16, 8)
    again = from_spec(to_spec(quantizer))
    again.load_state_dict(quantizer.state_dict())
    assert to_spec(again) == to_spec(quantizer) and type(again) is type(quantizer)
    z = clusters(1)
    assert torch.equal(again.eval()(z).z, quantizer.eval()(z).z)


@pytest.mark.parametrize("kind", KINDS)
def test_learning_lowers_the_error(kind):
    before, after = fitted(KINDS[kind](32, 8))
    assert after < (0.99 if kind == "projected" else 0.95) * before  # half the dimensions are lost before it learns


@pytest.mark.parametrize("kind", KINDS)
def test_training_passes_gradients_to_the_input_by_z_and_to_atoms_by_learned(kind):
    quantizer = KINDS[kind](16, 8)
    quantizer.initialise(to_cells(clusters(1), 8))
    z = clusters(1, seed=3).requires_grad_()
    quantizer(z).z.square().sum().backward()
    assert z.grad.abs().sum() > 0
    atoms = [p for name, p in quantizer.named_parameters() if name.endswith("codebook")]
    for parameter in quantizer.parameters():
        parameter.grad = None
    if any(p.requires_grad for p in atoms):
        quantizer(z.detach()).z_q_codebook.square().sum().backward()
    assert all((p.grad is not None and p.grad.abs().sum() > 0) == p.requires_grad for p in atoms)


def test_dead_atoms_are_revived():
    quantizer = HardQuantizer(64, 8, decay=0.5, threshold_usage_ratio=0.05)
    z = clusters(4)
    with torch.no_grad():
        quantizer.codebook[1:] += 100  # only atom 0 is ever nearest
    assert quantizer.eval()(z).usage == 1 / 64
    quantizer.train()
    for step in range(12):
        quantizer(clusters(4, seed=step))
    assert quantizer.eval()(z).usage > 0.9
    frozen = HardQuantizer(64, 8, decay=0.5, threshold_usage_ratio=0.0)
    with torch.no_grad():
        frozen.codebook[1:] += 100
    for _ in range(12):
        frozen(z)
    assert frozen.eval()(z).usage == 1 / 64


@few
@given(n=st.integers(1, 30), extra=st.integers(0, 40), d=st.integers(1, 9), seed=seeds)
def test_kmeans_on_fewer_cells_than_atoms(n, extra, d, seed):
    cells = rand(n, d, seed=seed)
    centroids = kmeans(cells, n + extra, iterations=3, seed=seed)
    assert centroids.shape == (n + extra, d) and torch.isfinite(centroids).all()
    found = centroids[find_nearest(cells, centroids)]
    assert F.mse_loss(found, cells) < 1e-2  # nearly every cell has an atom of its own


def test_kmeans_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        kmeans(torch.zeros(0, 8), 4)


@few
@given(seed=seeds, learn=st.sampled_from(["gradient", "ema"]))
def test_straight_through_gradient_is_identity(seed, learn):
    quantizer = HardQuantizer(16, 8, learn=learn)
    z = rand(2, 8, 3, 4, seed=seed).requires_grad_()
    wanted = rand(2, 8, 3, 4, seed=seed + 1)
    (quantizer(z).z * wanted).sum().backward()
    assert torch.equal(z.grad, wanted)


@few
@given(commitment=st.floats(0, 10), seed=seeds)
def test_losses_have_their_weights(commitment, seed):
    z = rand(2, 8, 3, 4, seed=seed)
    quantizer = HardQuantizer(16, 8, commitment=commitment)
    atoms = quantizer.decode(quantizer.encode(z)).detach()
    losses = quantizer(z).losses
    assert losses["codebook"].item() == pytest.approx(F.mse_loss(atoms, z).item(), rel=1e-5)
    assert losses["commitment"].item() == pytest.approx(commitment * F.mse_loss(atoms, z).item(), rel=1e-5)
    assert set(HardQuantizer(16, 8, learn="ema")(z).losses) == {"commitment"}


def test_codebook_term_moves_atoms_only_and_commitment_latents_only():
    quantizer = HardQuantizer(16, 8)
    z = rand(2, 8, 3, 4, seed=0).requires_grad_()
    losses = quantizer(z).losses
    losses["codebook"].backward(retain_graph=True)
    assert z.grad is None and quantizer.codebook.grad.abs().sum() > 0
    quantizer.codebook.grad = None
    losses["commitment"].backward()
    assert quantizer.codebook.grad is None and z.grad.abs().sum() > 0


def test_wrong_dimension_is_named():
    with pytest.raises(ValueError, match="atoms of 8 numbers"):
        HardQuantizer(4, 8)(torch.zeros(1, 4, 2, 2))
