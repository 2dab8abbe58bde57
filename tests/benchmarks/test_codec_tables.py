"""The small tables of the codec: what its noise is chosen for, and how far its decoders are apart."""

from argparse import Namespace
from dataclasses import replace

import torch

from benchmarks import noise_choice, portability
from benchmarks.trial import make_trial
from tests.conftest import EXAMPLES


def test_a_row_for_each_choice_with_numbers(tiny, speech, monkeypatch):
    monkeypatch.setattr(noise_choice, "ROWS", [replace(row, steps=2) for row in noise_choice.ROWS])
    monkeypatch.setattr(noise_choice.move_latents, "__defaults__", (3, 0.05))
    with torch.no_grad():
        trial = make_trial(tiny, [speech[:10240], speech[10240:20480]])
        lines = noise_choice.measure(trial, [1.0], [])
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines[2 : 2 + len(noise_choice.ROWS)]}
    assert list(rows) == [row.title for row in noise_choice.ROWS]
    losses = {title: float(cells[0]) for title, cells in rows.items()}
    assert losses[noise_choice.ROWS[1].title] != losses["the latent alone"] and lines[-1].startswith("2 training clips")


def test_moved_latents_decode_nearer(tiny, speech):
    with torch.no_grad():
        trial = make_trial(tiny, [speech[:10240]])
        moved = noise_choice.move_latents(tiny, trial.targets, steps=20)
        errors = [(tiny.decode(z) - trial.mels).abs().mean() for z in (trial.z, moved.z)]
    assert errors[1] < errors[0] and torch.equal(moved.mels, trial.targets.mels)


def test_every_condition_decodes_a_file_to_nearly_the_same(monkeypatch):
    monkeypatch.setattr(portability, "ROWS", [portability.ROWS[0], portability.ROWS[2]])
    args = Namespace(backbone="tiny", audio=EXAMPLES / "speech.flac", seconds=0.64, rates=[2.0], steps=2)
    same, other = (line.split(" | ") for line in portability.measure(args)[2:4])
    assert float(same[1]) == 0 and float(same[2].strip("| ")) == 0 and other[0] == "| SSE4.1 alone"
    assert 0 < float(other[1]) < 1e-3 and float(other[2].strip("| ")) < 0.01
