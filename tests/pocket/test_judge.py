"""The judge of generated sounds: its ear, its distances, its table."""

from argparse import Namespace
from collections import Counter

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")

from ddcm.errors import UserError
from pocket import classifier
from pocket.corpus import KINDS
from pocket.cross_validation import held_out, table
from pocket.judge import captions, energy_corr, frechet, judge, moments, rate_judge, statistics, take_in_turn
from tests.helpers.pocket_corpus import examples_as_corpus


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """(corpus of the examples, a classifier trained on it, its file)"""
    folder = tmp_path_factory.mktemp("judge")
    corpus = examples_as_corpus(folder)
    file = folder / "classifier.pt"
    return corpus, classifier.train_classifier(corpus, file, steps=60, batch=4), file


def test_the_classifier_learns_its_examples_at_any_level(heard):
    corpus, ear, file = heard
    clips = classifier.real_clips(corpus)
    audio = torch.cat([clips[kind][0][:1] for kind in KINDS])
    names = classifier.name_kinds(ear, audio)
    assert sum(a == b for a, b in zip(names, KINDS, strict=True)) >= 3 and names == classifier.name_kinds(
        ear, audio * 0.1
    )
    again = classifier.train_classifier(corpus, file)  # from its file
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), ear.parameters(), strict=True))


def test_pieces_of_a_clip_vote_together(heard):
    """A clip whose pieces are mostly of one kind is of that kind; in the row of pieces each counts."""
    corpus, ear, _ = heard
    clips = classifier.real_clips(corpus)
    assert sum(len(own) for own in clips.values()) == len({clip.path for clip in corpus.of("val")})
    pieces = torch.cat([own[0][:1] for own in clips.values()])
    names = classifier.name_kinds(ear, pieces)
    for index, name in enumerate(names):
        rated = classifier.rate_kinds(ear, pieces[[index]])
        assert float(rated.sum()) == pytest.approx(1) and classifier.name_clip(ear, pieces[[index] * 3]) == name
    pools = {"first": {"music": [pieces[:1].repeat(5, 1), pieces[1:2]]}}
    shares = rate_judge(ear, pools, "music")
    right = [name == "music" for name in names[:2]]
    assert list(shares.values()) == [sum(right) / 2, (5 * right[0] + right[1]) / 6]
    assert rate_judge(ear, pools, "speech") == {}
    clips = [torch.tensor([[1.0], [4.0], [6.0]]), torch.tensor([[2.0]]), torch.tensor([[3.0], [5.0]])]
    assert take_in_turn(clips).flatten().tolist() == [1, 2, 3, 4, 5, 6]


def test_frechet_distance_of_known_gaussians():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(20000, 3))
    moved, wider = a + np.array([3.0, 4.0, 0.0]), 2 * a
    assert frechet(moments(a), moments(a)) == pytest.approx(0, abs=1e-3)
    assert frechet(moments(a), moments(moved)) == pytest.approx(25, rel=1e-3)
    assert frechet(moments(a), moments(wider)) == pytest.approx(3, rel=0.05)  # (2 - 1)^2 for each of three dimensions


def test_weights_balance_what_is_there_unevenly():
    rows = np.random.default_rng(0).normal(size=(3000, 3)) + np.repeat([[0.0], [6.0]], (2000, 1000), axis=0)
    weights = np.repeat([1 / 2000, 1 / 1000], (2000, 1000))
    balanced = moments(np.concatenate([rows[:1000], rows[2000:]]))
    assert frechet(moments(rows, weights), balanced) < 0.05 < frechet(moments(rows), balanced)


def test_statistics_ignore_the_level_and_energy_follows_the_envelope(speech):
    both = torch.stack([speech[:40960], 0.1 * speech[:40960]])
    first, second = statistics(both)
    assert first.shape == (128,) and np.allclose(first, second, atol=1e-3)
    assert energy_corr(speech, 0.2 * speech) == pytest.approx(1, abs=1e-4)
    assert energy_corr(speech, speech.flip(0)) < 0.9


def test_captions_are_spread_and_repeated(heard):
    found = captions(heard[0], "percussion", 5)
    assert len(found) == 5 and set(found) == {"percussion: drumloop", "percussion: drumroll"}


def test_the_table_is_made(heard):
    args = Namespace(backbone="tiny", corpus=heard[2].parent, runs=heard[2].parent, samples=4, transforms=1,
                     steps=2, guidance_scale=3.5, transform_guidance=5.0, device="cpu", threads=None)  # fmt: skip
    table = judge(args)
    assert table.count("|") > 30 and "real clips of the first pool named right" in table and "Frechet distance" in table


def test_a_classifier_of_another_form_is_refused(tmp_path):
    torch.save({"head.weight": torch.zeros(2, 2)}, tmp_path / "classifier.pt")
    with pytest.raises(UserError, match="another classifier: remove it"):
        classifier.load_classifier(tmp_path / "classifier.pt")


def test_cross_validation_hears_each_training_file_once_and_never_what_it_learned(heard):
    corpus = heard[0]
    parts = [held_out(corpus, fold, 2) for fold in range(2)]
    validated = [clip.path for part in parts for clip in part.of("val")]
    assert sorted(validated) == sorted(clip.path for clip in corpus.of("train"))
    for part in parts:
        assert not {clip.path for clip in part.of("val")} & {clip.path for clip in part.of("train")}
    text = table(Counter({(kind, "speech"): 2 for kind in KINDS}) + Counter({("music", "music"): 6}))
    assert "| music | 2 | 6 | 0 | 0 | 8 | 0.75 |" in text and text.endswith("alike: 0.438")
