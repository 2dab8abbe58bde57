"""Metrics of a set: those of its batches and ranks together."""

import math

import pytest
import torch

pytest.importorskip("lightning")

from ddcm.fit.metrics import CodebookMetrics
from ddcm.quantize import HardQuantizer, Quantized, ResidualQuantizer


def quantized(codes: list, z: torch.Tensor) -> Quantized:
    return Quantized(z=torch.zeros_like(z), codes=torch.tensor(codes).reshape(len(z), -1), z_q_codebook=z)


def test_metrics_of_two_batches_are_those_of_all_cells():
    metrics = CodebookMetrics(HardQuantizer(codebook_size=4, embedding_dim=2), cells_per_s=400)
    small, large = torch.ones(1, 2, 1, 2), 3 * torch.ones(3, 2, 1, 2)
    metrics.update(small, quantized([0, 1], small))
    metrics.update(large, quantized([0, 1, 0, 1, 2, 2], large))
    values = metrics.compute()
    bits = 2 * (3 / 8) * math.log2(8 / 3) + 1 / 4 * 2
    assert values["quantisation_error"] == (1 * 4 + 9 * 12) / 16 and values["usage"] == 0.75
    assert values["bits_per_cell"] == pytest.approx(bits) and values["kbps"] == pytest.approx(bits * 0.4)
    assert values["perplexity"] == pytest.approx(2**bits)
    metrics.reset()
    metrics.update(small, quantized([3, 3], small))
    assert metrics.compute()["usage"] == 0.25 and metrics.compute()["bits_per_cell"] == 0


def test_bits_of_several_codes_add_up():
    quantizer = ResidualQuantizer(num_quantizers=2, level=HardQuantizer(codebook_size=2, embedding_dim=2))
    metrics, z = CodebookMetrics(quantizer, cells_per_s=1000), torch.zeros(1, 2, 1, 4)
    codes = torch.tensor([[[[0, 1, 0, 1]], [[0, 0, 0, 0]]]])
    metrics.update(z, Quantized(z=z, codes=codes, z_q_codebook=z))
    values = metrics.compute()
    assert values["bits_per_cell"] == pytest.approx(1) and values["kbps"] == pytest.approx(1)
    assert values["perplexity"] == pytest.approx(2**0.5) and values["usage"] == 0.75


def test_states_are_in_no_checkpoint():
    assert not CodebookMetrics(HardQuantizer(codebook_size=4, embedding_dim=2), 400).state_dict()
