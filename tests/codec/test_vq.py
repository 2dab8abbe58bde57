"""Codes of a fitted codebook: their choice, their model and their bytes."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddcm.audio.mel import log_mel
from ddcm.codec.codes import context, vq
from ddcm.codec.codes.choice import CodeSearch, choose_codes
from ddcm.codec.targets import compute_targets
from ddcm.errors import UserError
from ddcm.quantize import HardQuantizer, ProjectedQuantizer, ResidualQuantizer, SoftQuantizer
from tests.conftest import ROOT

BANDS = 16
DIGEST, REVISION = next(
    (path.stem.split("-")[0], int(path.stem.split("-")[1])) for path in sorted(context.FOLDER.glob("*.npz"))
)


def residual(levels: int, size: int) -> ResidualQuantizer:
    quantizer = ResidualQuantizer(levels, HardQuantizer(size, 8))
    cells = torch.randn(4000, 8, generator=torch.Generator().manual_seed(size))
    quantizer.initialise(cells * torch.linspace(0.3, 2, 8))
    return quantizer.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def quantizer():
    return residual(4, 8)


@pytest.fixture(scope="module")
def targets(tiny, speech):
    return compute_targets(tiny, [log_mel(speech[None, : 640 * 24], tiny.mel_spec)[:, :, :96]])


def end_cells(codes: np.ndarray, size: int) -> np.ndarray:
    """After a code K, a cell has nothing else."""
    ended = np.maximum.accumulate(codes == size, axis=0)
    return np.where(ended, size, codes)


@settings(max_examples=40)
@given(st.data())
def test_any_codes_come_back(data):
    size, levels = data.draw(st.sampled_from([(2, 1), (2, 5), (8, 3), (33, 2), (1024, 1)]))
    frames, windows = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    revision = data.draw(st.sampled_from([0, 1, REVISION]))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    power = data.draw(st.sampled_from([1, 6]))  # 6: codes are far from uniform
    top = size + (revision > 0)
    quantizer = ResidualQuantizer(levels, HardQuantizer(size, 8)) if levels > 1 else HardQuantizer(size, 8)
    given = [
        end_cells((rng.random((levels, frames, BANDS)) ** power * top).astype(np.int32), size) for _ in range(windows)
    ]
    encoder = vq.Encoder(quantizer, levels, BANDS, revision, DIGEST)
    for codes in given:
        before = codes.copy()
        encoder.write(codes)
        assert (codes == before).all()
    payload = encoder.getvalue()
    found = list(vq.decode(payload, quantizer, windows, (levels, frames, BANDS), revision, DIGEST))
    assert all((a == b).all() for a, b in zip(found, given, strict=True))


@settings(max_examples=100)
@given(payload=st.binary(max_size=200), revision=st.sampled_from([0, 1, REVISION]))
def test_any_payload_gives_codes_or_one_line(quantizer, payload, revision):
    try:
        for codes in vq.decode(payload, quantizer, 2, (4, 3, BANDS), revision, DIGEST):
            assert codes.min() >= 0 and codes.max() <= quantizer.codebook_size
            assert (end_cells(codes, 8) == codes).all()
    except UserError as error:
        assert "damaged" in str(error) and "\n" not in str(error)


def test_a_context_model_that_is_not_here_is_refused(quantizer):
    with pytest.raises(UserError, match="revision 255"):
        vq.Encoder(quantizer, 4, BANDS, 255, DIGEST)


def test_the_context_model_computes_in_integers(quantizer):
    """Sums are exact in any order as long as they are whole and below 2^53."""
    net = context.load_context(DIGEST, REVISION)
    for parity, layers in net.layers.items():
        values = np.full(len(layers[0][0]), float(context.RANGE))
        for weight, bias in layers:
            assert (weight == np.round(weight)).all() and (bias == np.round(bias)).all()
            assert float((values @ np.abs(weight) + np.abs(bias)).max()) < 2**53
            values = np.full(len(bias), float(context.MOST))
        mean, variance = net.predict(parity, np.random.default_rng(0).integers(-900, 900, (5, len(layers[0][0]))) * 1.0)
        assert (mean == np.round(mean)).all() and (variance == np.round(variance)).all() and variance.min() > 0


def test_the_context_makes_real_codes_shorter():
    """Those of the shipped residual codebook, for the latents of a recording."""
    from ddcm.audio.files import read_audio
    from ddcm.backbone import load
    from ddcm.quantize.pretrained import load_codebook

    backbone = load(str(ROOT / "checkpoints" / "pocket"))
    quantizer = load_codebook(ROOT / "checkpoints" / "codebooks" / "pocket-residual").quantizer
    audio = read_audio(ROOT / "examples" / "speech.flac")[: 640 * 60]
    codes = vq.to_levels(quantizer.encode(backbone.encode(log_mel(audio[None], backbone.mel_spec)[:, :, :240])))[:2]
    sizes = []
    for revision in (0, vq.choose_revision(quantizer, backbone.latent_digest)):
        encoder = vq.Encoder(quantizer, 2, BANDS, revision, backbone.latent_digest)
        encoder.write(codes)
        sizes.append(len(encoder.getvalue()))
    assert sizes[1] < 0.9 * sizes[0]


def test_with_everything_off_codes_are_the_nearest_atoms(tiny, targets, quantizer):
    how = CodeSearch(rate_weight=0.0, width=1)
    plain = replace(targets, weights=torch.ones_like(targets.z), mel_weight=0.0)
    nearest = vq.to_levels(quantizer.encode(targets.z))
    assert (choose_codes(tiny, plain, quantizer, 4, how=how) == nearest).mean() > 0.999  # but for ties in rounding
    assert (choose_codes(tiny, plain, quantizer, 2, how=how) == nearest[:2]).mean() > 0.999


def test_each_part_of_the_choice_does_what_it_is_for(tiny, targets, quantizer):
    def measure(**options) -> tuple[float, float, int]:
        """Error of the latent and of the mel, and bytes."""
        mel_weight = options.pop("mel_weight", 0.0)
        codes = choose_codes(tiny, replace(targets, mel_weight=mel_weight), quantizer, 4, how=CodeSearch(**options))
        z, encoder = vq.decode_codes(codes, quantizer), vq.Encoder(quantizer, 4, BANDS, 1)
        encoder.write(codes)
        error = (targets.weights * (z - targets.z).square()).sum(), (tiny.decode(z) - targets.mels).square().sum()
        return float(error[0]), float(error[1]), len(encoder.getvalue())

    with torch.no_grad():
        narrow, wide = measure(rate_weight=0.0, width=1), measure(rate_weight=0.0)
        assert wide[0] < narrow[0]
        assert measure(rate_weight=0.0, mel_weight=1.0, steps=8)[1] < wide[1]
        cheap = [measure(rate_weight=weight) for weight in (1.0, 4.0)]
        assert cheap[1][2] < cheap[0][2] < wide[2] and wide[0] < cheap[0][0] < cheap[1][0]


def test_codes_are_added_to_a_base(tiny, targets, quantizer):
    base = -targets.z
    how = CodeSearch(rate_weight=0.0, steps=4)
    with torch.no_grad():
        z = base + vq.decode_codes(
            choose_codes(tiny, replace(targets, mel_weight=0.0), quantizer, 4, base, how), quantizer
        )
        nearer = base + vq.decode_codes(choose_codes(tiny, targets, quantizer, 4, base, how), quantizer)
        errors = [float((tiny.decode(x) - targets.mels).square().mean()) for x in (base, z, nearer)]
    assert (z - targets.z).square().mean() < 0.6 * (base - targets.z).square().mean() and errors[2] < errors[1]


@pytest.mark.parametrize("kind", ["soft", "projected", "residual projected", "cosine"])
def test_any_quantizer_has_codes(tiny, targets, kind):
    quantizer = {
        "soft": lambda: SoftQuantizer(16, 8), "projected": lambda: ProjectedQuantizer(HardQuantizer(16, 4)),
        "residual projected": lambda: ProjectedQuantizer(residual(2, 8)),
        "cosine": lambda: HardQuantizer(16, 8, distance="cosine"),
    }[kind]().eval()  # fmt: skip
    quantizer.requires_grad_(False)
    levels, revision = quantizer.num_quantizers, vq.choose_revision(quantizer, DIGEST)
    assert revision == (0 if "projected" in kind else REVISION)
    codes = choose_codes(tiny, targets, quantizer, levels, how=CodeSearch(steps=1, latent_digest=DIGEST))
    encoder = vq.Encoder(quantizer, levels, BANDS, revision, DIGEST)
    encoder.write(codes)
    found = next(vq.decode(encoder.getvalue(), quantizer, 1, codes.shape, revision, DIGEST))
    assert (found == codes).all() and vq.decode_codes(found, quantizer).shape == targets.z.shape


PREDICT = """
import hashlib, sys
import numpy as np
from ddcm.codec.codes.context import ODD, atom_weights, fix_atoms, load_context
net, rng = load_context(sys.argv[1], int(sys.argv[2])), np.random.default_rng(0)
mean, variance = net.predict(ODD, rng.integers(-900, 900, (400, len(net.layers[ODD][0][0]))).astype(float))
fixed = fix_atoms(rng.normal(size=(2, 64, 8)).astype(np.float32), rng.random((2, 64)).astype(np.float32))
weights = atom_weights(fixed, 0, mean, variance, net.widen)
print(hashlib.sha256(b"".join(x.tobytes() for x in (mean, variance, weights))).hexdigest())
"""


def test_other_instruction_sets_have_the_same_probabilities():
    """Another kernel of the matrix product adds up in another order."""
    found = set()
    for environment in ({}, {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3"}):
        command = [sys.executable, "-W", "ignore", "-c", PREDICT, DIGEST, str(REVISION)]
        result = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        found.add(result.stdout)
    assert len(found) == 1
