"""The table of what the choice of codes saves."""

import pytest
import torch

from benchmarks.vq_choice import ROWS, Trial, bits_at, measure
from ddcm.quantize import HardQuantizer, ResidualQuantizer


def test_rates_between_two_points_lie_on_a_line_of_logarithms():
    curve = [(1.0, 4.0), (2.0, 2.0), (4.0, 1.5)]
    assert bits_at(curve, 2.0) == pytest.approx(2.0) and bits_at(curve, 8**0.5) == pytest.approx(2**0.5)
    assert bits_at(curve, 1.0) > 4 and bits_at(curve, 8.0) == pytest.approx(0.5)


def test_the_table_has_every_row(tiny, speech):
    quantizer = ResidualQuantizer(2, HardQuantizer(8, 8))
    quantizer.initialise(torch.randn(500, 8, generator=torch.Generator().manual_seed(0)))
    quantizer.eval().requires_grad_(False)
    with torch.no_grad():
        lines = measure(Trial(tiny, quantizer, [speech[:10240]]), [1, 2], ROWS[:3])
    assert len(lines) == 8 and all(line.count("|") == 4 for line in lines[:6])
    assert "%" in lines[3] and "kbps" in lines[2]
