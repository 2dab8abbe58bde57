"""The model card's table: what is measured of a clip, and how it is averaged."""

import math

import pytest
import torch

pytest.importorskip("lightning")

from ddcm.audio.files import read_audio
from ddcm.evaluation import perceptual
from ddcm.pipeline import DDCMPipeline
from pocket.corpus import KINDS, Clip
from pocket.evaluate import ROWS, match_captions, measure, noise_error, table
from tests.conftest import EXAMPLES, ROOT


def test_without_a_codebook_its_rows_are_left_out(speech):
    row = measure(DDCMPipeline.from_pretrained("tiny"), speech[:25600], "speech", "a man reads", 0)
    assert set(row) <= set(ROWS) and {"mel_vae", "vocoder", "vae", "refined", "corr"} <= set(row)
    assert not {"quantised", "mel_quantised", "corr_0.3"} & set(row)


def test_metrics_of_speech_are_for_speech_alone(speech, monkeypatch):
    metrics = {name: lambda reference, estimate: 1.0 for name in perceptual.PERCEPTUAL}
    monkeypatch.setattr("pocket.evaluate.installed", lambda: metrics)
    pipe = DDCMPipeline.from_pretrained("tiny")
    names = {
        kind: {name for name in measure(pipe, speech[:25600], kind, "", 0) if "_" in name}
        for kind in ("speech", "music")
    }
    assert names["speech"] - names["music"] == {"vae_stoi", "vae_pesq_wb", "refined_stoi", "refined_pesq_wb"}
    assert {"vae_visqol", "refined_visqol"} <= names["music"]


def test_noise_error_is_zero_for_a_perfect_estimate_and_has_a_seed():
    backbone = DDCMPipeline.from_pretrained("tiny").backbone
    z = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    first = noise_error(backbone, z, "a drum", 3)
    assert first == noise_error(backbone, z, "a drum", 3) != noise_error(backbone, z, "a drum", 4) and first > 0

    class Perfect:
        alphas_cumprod = backbone.alphas_cumprod

        def null_condition(self):
            return None

        def eps(self, x, t, condition):
            abar = self.alphas_cumprod[t].float()[:, None, None, None]
            return (x - abar.sqrt() * z) / (1 - abar).sqrt()

    assert noise_error(Perfect(), z, "", 3) == pytest.approx(0, abs=1e-9)


def test_captions_are_matched_by_the_embedded_clap():
    clips = [
        (Clip(kind, caption, "val", 0, 40960, name), read_audio(EXAMPLES / f"{name}.flac")[:40960].numpy())
        for kind, caption, name in (
            ("speech", "a man reads English", "speech"),
            ("music", "game music, menu", "melodic"),
        )
    ]
    assert match_captions(ROOT / "checkpoints" / "pocket", clips) == [1.0, 1.0]


def test_means_are_of_the_clips_that_have_a_value():
    rows = {kind: [] for kind in KINDS}
    rows["speech"] = [{"vae": 1.0, "vae_stoi": 0.5}, {"vae": 2.0, "vae_stoi": math.nan}]
    rows["music"] = [{"vae": 6.0, "refined": 1.0}, {"vae": 3.0, "refined": 2.0}]
    lines = table(rows).splitlines()
    assert lines[0] == "| | speech (2) | music (2) | percussion (0) | effects (0) | all (4) |"
    assert lines[2:] == [
        "| VAE and vocoder (dB) | 1.50 | 4.50 | - | - | 3.00 |",
        "| VAE and refined vocoder (dB) | - | 1.50 | - | - | 1.50 |",
        "| the same, worst clip (dB) | - | 2.00 | - | - | 2.00 |",
        "| VAE and vocoder, stoi | 0.50 | - | - | - | 0.50 |",
    ]
