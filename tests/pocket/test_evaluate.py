"""The model card's table: what is measured of a clip, and how it is averaged."""

import math

import pytest

pytest.importorskip("lightning")

from ddcm.evaluation import perceptual
from ddcm.pipeline import DDCMPipeline
from pocket.corpus import KINDS
from pocket.evaluate import ROWS, measure, table


def test_without_a_codebook_its_rows_are_left_out(speech):
    row = measure(DDCMPipeline.from_pretrained("tiny"), speech[:25600], "speech")
    assert set(row) <= set(ROWS) and {"mel_vae", "vocoder", "vae", "refined", "corr"} <= set(row)
    assert not {"quantised", "mel_quantised", "corr_0.3"} & set(row)


def test_only_speech_is_heard_by_the_listeners_of_speech(speech, monkeypatch):
    ears = {name: lambda reference, estimate: 1.0 for name in perceptual.PERCEPTUAL}
    monkeypatch.setattr("pocket.evaluate.installed", lambda: ears)
    pipe = DDCMPipeline.from_pretrained("tiny")
    heard = {
        kind: {name for name in measure(pipe, speech[:25600], kind) if "_" in name} for kind in ("speech", "music")
    }
    assert heard["speech"] - heard["music"] == {"vae_stoi", "vae_pesq_wb", "refined_stoi", "refined_pesq_wb"}
    assert {"vae_visqol", "refined_visqol"} <= heard["music"]


def test_means_are_of_the_clips_that_have_a_value():
    rows = {kind: [] for kind in KINDS}
    rows["speech"] = [{"vae": 1.0, "vae_stoi": 0.5}, {"vae": 2.0, "vae_stoi": math.nan}]
    rows["music"] = [{"vae": 6.0}]
    lines = table(rows).splitlines()
    assert lines[0] == "| | speech (2) | music (1) | percussion (0) | effects (0) | all (3) |"
    assert lines[2:] == [
        "| VAE and vocoder (dB) | 1.50 | 6.00 | - | - | 3.00 |",
        "| VAE and vocoder, stoi | 0.50 | - | - | - | 0.50 |",
    ]
