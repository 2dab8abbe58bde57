"""Training windows and validation clips, on a corpus of six clips."""

import numpy as np
import pytest
import torch

from pocket.batches import Windows, mix, validation
from pocket.corpus import KINDS, Corpus
from tests.helpers.pocket_corpus import examples_as_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return examples_as_corpus(tmp_path_factory.mktemp("corpus"))


def take(windows: Windows, count: int) -> list[dict]:
    return [item for item, _ in zip(windows, range(count), strict=False)]


def test_windows_deal_the_kinds_evenly_and_repeatably(corpus):
    for fill in (True, False):
        items = take(Windows(corpus, 64, seed=3, fill=fill), 400)
        counts = {kind: sum(item["caption"].startswith(kind) for item in items) for kind in KINDS}
        assert all(60 <= count <= 140 for count in counts.values()), counts
        assert all(item["audio"].shape == (64 * 160,) for item in items)
    again = take(Windows(corpus, 64, seed=3, fill=False), 20)
    assert all(torch.equal(a["audio"], b["audio"]) for a, b in zip(items, again, strict=False))
    other = take(Windows(corpus, 64, seed=4, fill=False), 20)
    assert not all(torch.equal(a["audio"], b["audio"]) for a, b in zip(items, other, strict=False))


def test_short_clips_are_filled_or_followed_by_silence(corpus):
    frames = 800  # 8 s: longer than any clip
    full = take(Windows(corpus, frames, seed=0, fill=True), 4)
    assert all(item["audio"][-16000:].abs().max() > 0 for item in full)
    padded = take(Windows(corpus, frames, seed=0, fill=False), 4)
    assert all(item["audio"][-16000:].abs().max() == 0 for item in padded)


def test_mixed_windows_hold_both_clips_and_join_their_captions(corpus):
    plain = take(Windows(corpus, 64, seed=0, fill=False), 60)
    assert not any(" and " in item["caption"] for item in plain)
    mixed = take(Windows(corpus, 64, seed=0, fill=False, mixed=0.5), 60)
    joined = [item for item in mixed if " and " in item["caption"]]
    assert 15 <= len(joined) <= 45 and all(item["caption"].startswith(item["kind"]) for item in joined)
    assert max(float(item["audio"].abs().max()) for item in joined) <= 0.5 + 1e-6
    long, short = np.array([0.5, 0.0, 0.25, 0.0]), np.array([0.0, 0.5])
    assert mix(long, short) == pytest.approx([0.5, 0.5, 0.25, 0])  # nothing is turned down that has no need
    assert mix(long, long) == pytest.approx(long) and mix(short, long) == pytest.approx([0.5, 0.5])


def test_validation_never_moves(corpus):
    first, second = validation(corpus, 1.28, 4), validation(corpus, 1.28, 4)
    assert [clip for clip, _ in first] == [clip for clip, _ in second]
    for (clip, a), (_, b) in zip(first, second, strict=True):
        assert clip.split == "val" and np.array_equal(a, b)
        assert len(a) % 640 == 0 and np.abs(a).max() == pytest.approx(0.5, abs=1e-3)
    assert {clip.kind for clip, _ in first} == set(KINDS)
