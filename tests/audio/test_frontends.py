"""Front ends: each is the analysis that it says, and its conversion ends in the VAE's domain."""

import json

import numpy as np
import pytest
import torch

from ddcm.audio.files import resample
from ddcm.audio.frontends import FRONT_ENDS, analyse, clap_front_end, convert, extract
from ddcm.audio.level import normalise_level
from ddcm.audio.mel import LN_TO_DB, MelSpec, log_mel
from ddcm.recipes import CHOICES
from tests.conftest import EXAMPLES, ROOT

SPEC = MelSpec()
EXTRACTOR = json.loads((ROOT / "checkpoints/pocket/feature_extractor/preprocessor_config.json").read_text())
NAMES = ["clap", *FRONT_ENDS]


def front_end(name):
    return clap_front_end(EXTRACTOR) if name == "clap" else FRONT_ENDS[name]


@pytest.fixture(scope="module")
def audio(speech):
    return normalise_level(speech[: len(speech) // 640 * 640])[0]


def test_every_name_of_a_recipe_is_there():
    assert set(CHOICES["features"]) == {"matched", "clap", *FRONT_ENDS}


def test_clap_is_what_its_extractor_gives(audio):
    from transformers import ClapFeatureExtractor

    heard = resample(audio.numpy(), 16000, 48000)
    theirs = ClapFeatureExtractor(**{k: v for k, v in EXTRACTOR.items() if k != "feature_extractor_type"})
    wanted = theirs(heard, sampling_rate=48000, return_tensors="pt")["input_features"][0, 0]
    ours = analyse(audio, 16000, clap_front_end(EXTRACTOR))
    # It repeats a short clip up to ten seconds: frames before the first repetition are the clip's own.
    frames = len(heard) // 480 - 3
    # Beyond 8 kHz there is only the resampler's rounding; single and double precision differ there.
    heard_there = wanted[2:frames] > -80
    assert (ours[2:frames] - wanted[2:frames])[heard_there].abs().max() < 0.05


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_the_others_are_librosas(name, audio):
    import librosa

    front = FRONT_ENDS[name]
    heard = resample(audio.numpy(), 16000, 48000)
    power = librosa.feature.melspectrogram(
        y=heard, sr=48000, n_fft=front.n_fft, hop_length=front.hop, n_mels=64, fmin=front.fmin, fmax=front.fmax
    )
    wanted = librosa.power_to_db(power, ref=1.0, top_db=front.top_db).T
    ours = analyse(audio, 16000, front).numpy()
    assert ours.shape == wanted.shape
    loud = wanted > wanted.max() - 70
    assert np.abs(ours - wanted)[loud].max() < 0.05
    assert np.median(np.abs(ours - wanted)) < 0.05


def test_settings_are_those_of_the_scripts():
    assert (FRONT_ENDS["librosa"].fmin, FRONT_ENDS["librosa"].fmax, FRONT_ENDS["librosa"].top_db) == (50, 24000, 80)
    assert (FRONT_ENDS["librosa"].hop, FRONT_ENDS["librosa"].n_fft) == (480, 1200)  # 10 and 25 ms at 48 kHz
    high = FRONT_ENDS["librosa-high"]
    assert (high.fmin, high.fmax, high.top_db, high.hop) == (0, 24000, 120, 480)


def test_top_db_reaches_the_features():
    sound = torch.zeros(16000)
    sound[:8000] = 0.5 * torch.sin(torch.arange(8000) * 2 * torch.pi * 1000 / 16000)
    spans = {}
    for name in NAMES:
        decibels = analyse(sound, 16000, front_end(name))
        spans[name] = float(decibels.max() - decibels.min())
    assert spans["librosa"] == pytest.approx(80, abs=1e-3) and spans["plain"] == pytest.approx(80, abs=1e-3)
    assert spans["librosa-high"] == pytest.approx(120, abs=1e-3)
    assert spans["clap"] > 85  # no top_db, down to its floor at -100 dB


def test_fmin_reaches_the_features():
    """A tone at 30 Hz is inside the first band from 0 Hz, and outside the first one from 50 Hz."""
    sound = 0.5 * torch.sin(torch.arange(32000) * 2 * torch.pi * 30 / 16000)
    first = {
        name: float(analyse(sound, 16000, FRONT_ENDS[name])[20:60, 0].mean()) for name in ("librosa-high", "plain")
    }
    assert first["librosa-high"] > first["plain"] + 6


@pytest.mark.parametrize("file", ["speech", "drumloop", "melodic", "bird"])
@pytest.mark.parametrize("name", NAMES)
def test_the_conversion_ends_near_the_matched_mel(name, file):
    from ddcm.audio.files import read_audio

    audio = normalise_level(read_audio(EXAMPLES / f"{file}.flac"))[0]
    audio = audio[:32000]
    matched = log_mel(audio[None])
    converted, used = extract(name, audio, SPEC, EXTRACTOR)
    raw, _ = extract(name, audio, SPEC, EXTRACTOR, raw=True)
    assert used == name and converted.shape == raw.shape == matched.shape
    heard = matched > matched.max() - 70 / LN_TO_DB  # what top_db cut off is not to be had back
    errors = [float((x - matched)[heard].abs().mean()) * LN_TO_DB for x in (converted, raw)]
    assert errors[0] < 7 and errors[1] > 10 * errors[0]
    shifts = [float((torch.roll(converted, s, 2) - matched)[:, :, 9:-9].abs().mean()) for s in (-2, -1, 0, 1, 2)]
    assert min(shifts) == shifts[2], "frames are not where the matched ones are"


@pytest.mark.parametrize("name", NAMES)
def test_level_reaches_the_mel(name, audio):
    """Half the amplitude is 6 dB less everywhere above the floors."""
    loud, quiet = (extract(name, audio * gain, SPEC, EXTRACTOR)[0] for gain in (1.0, 0.5))
    above = quiet > -8
    assert torch.allclose((loud - quiet)[above], torch.tensor(2.0).log(), atol=0.05)


@pytest.mark.parametrize("name", ["matched", *NAMES])
@pytest.mark.parametrize("samples", [640, 1280, 4800])
def test_short_sounds_and_silence(name, samples):
    for audio in (torch.zeros(samples), torch.randn(samples) * 0.1):
        for raw in (False, True):
            mel, _ = extract(name, audio, SPEC, EXTRACTOR, raw)
            assert mel.shape == (1, 1, samples // 160, 64) and torch.isfinite(mel).all()


def test_a_backbone_without_extractor_falls_back(audio):
    mel, used = extract("clap", audio, SPEC, None)
    assert used == "librosa" and torch.equal(mel, extract("librosa", audio, SPEC)[0])


def test_white_noise_has_no_bias():
    """The offsets are measured on other noise; the level of this one is 12 dB higher."""
    noise = torch.randn(48000, generator=torch.Generator().manual_seed(5)) * 0.4
    matched = log_mel(noise[None])
    for name in NAMES:
        front = front_end(name)
        converted = convert(analyse(noise, 16000, front), 300, front, SPEC)
        assert float((converted - matched).mean((0, 1, 2)).abs().max()) * LN_TO_DB < 1.0
