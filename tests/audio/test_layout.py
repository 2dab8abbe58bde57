"""Windows over a recording cover all of it, and join back to it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddcm.audio.layout import even_layout, fixed_layout
from ddcm.audio.level import measure_level
from ddcm.audio.mel import MelSpec, log_mel
from ddcm.audio.windows import cross_fade, cross_fade_stream, window_mel


@given(st.integers(1, 10**7))
def test_windows_cover_everything(samples):
    layout = even_layout(samples, 160)
    assert layout.starts[0] == 0 and layout.starts[-1] + layout.size == layout.total >= samples / 160
    assert all(start % 4 == 0 for start in layout.starts) and layout.size % 4 == 0 and layout.size <= 1024
    overlaps = [a + layout.size - b for a, b in zip(layout.starts, layout.starts[1:], strict=False)]
    assert all(64 <= overlap <= 80 for overlap in overlaps)


@pytest.mark.parametrize("overlap", [64, None])
@pytest.mark.parametrize("frames", [1028, 1984, 5000])
def test_windows_join_back(frames, overlap):
    mel = torch.randn(1, 1, frames, 2)
    for layout in (fixed_layout(frames), even_layout(frames * 160, 160)):
        windows = [mel[:, :, start : start + layout.size] for start in layout.starts]
        assert torch.allclose(cross_fade(torch.cat(windows), layout.starts, overlap), mel, atol=1e-5)


def test_a_fade_over_all_that_is_shared_is_linear():
    zeros, ones = torch.zeros(1, 1, 10, 1), torch.ones(1, 1, 10, 1)
    joined = torch.cat([*cross_fade_stream([zeros, ones], (0, 7), overlap=None)], dim=2).flatten()
    assert torch.allclose(joined, torch.tensor([0.0] * 7 + [0.25, 0.5, 0.75] + [1.0] * 7))


def test_window_mels_are_those_of_the_whole_recording():
    audio = torch.randn(16000 * 11 + 77, generator=torch.Generator().manual_seed(0)) * 0.1
    level, layout = measure_level(audio), even_layout(len(audio), 160)
    padded = torch.nn.functional.pad((audio - level.mean) * level.gain, (0, layout.total * 160 - len(audio)))
    whole = log_mel(padded[None], MelSpec())
    for index, start in enumerate(layout.starts):
        piece = window_mel(audio, level, layout, index, MelSpec())
        assert torch.allclose(piece, whole[:, :, start : start + layout.size], atol=1e-4)
