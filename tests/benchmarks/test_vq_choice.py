"""The table of what the choice of codes saves."""

import torch

from benchmarks.vq_choice import ROWS, Trial, measure
from ddcm.quantize import HardQuantizer, ResidualQuantizer


def test_the_table_has_every_row(tiny, speech):
    quantizer = ResidualQuantizer(2, HardQuantizer(8, 8))
    quantizer.initialise(torch.randn(500, 8, generator=torch.Generator().manual_seed(0)))
    quantizer.eval().requires_grad_(False)
    with torch.no_grad():
        lines = measure(Trial(tiny, quantizer, [speech[:10240]]), [1, 2], ROWS[:3])
    assert len(lines) == 8 and all(line.count("|") == 4 for line in lines[:6])
    assert "%" in lines[3] and "kbps" in lines[2]
