"""Metrics and folders of files: known values, pairing, the table, the worst file."""

import csv
import json
import math
import os
import unicodedata

import pytest
import soundfile
import torch

from ddcm.audio.files import write_audio
from ddcm.cli.main import main
from ddcm.errors import UserError
from ddcm.evaluation.evaluate_files import evaluate_pairs, measure, pair_files, summarize, write_jsonl
from ddcm.evaluation.perceptual import JUDGES, installed
from ddcm.evaluation.signal_metrics import METRICS, badness, hf_ratio_db, lsd_db, mrstft, si_sdr_db


def noise(samples=32000, seed=0):
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_si_sdr_is_the_ratio_of_signal_to_added_noise(speech):
    added = noise(len(speech))
    added = added - (added @ speech) / (speech @ speech) * speech
    for wanted in (20.0, 0.0, -10.0):
        scaled = added * float(speech.norm() / added.norm()) * 10 ** (-wanted / 20)
        assert si_sdr_db(speech, 0.3 * (speech + scaled)) == pytest.approx(wanted, abs=0.1)
    assert si_sdr_db(speech, speech) == 100


def test_hf_ratio_is_of_the_band_above_4_khz():
    low, high = (torch.sin(torch.arange(16000) * 2 * math.pi * hz / 16000) for hz in (1000, 6000))
    assert hf_ratio_db(low + high, low + 0.5 * high) == pytest.approx(-6.02, abs=0.05)
    assert hf_ratio_db(low + high, 0.1 * low + high) == pytest.approx(0, abs=0.05)


def test_spectral_distances_grow_with_the_error(speech):
    for metric in (lsd_db, mrstft):
        values = [metric(speech, speech + scale * noise(len(speech))) for scale in (0, 0.01, 0.1, 1)]
        assert values == sorted(values) and values[0] == pytest.approx(0, abs=1e-4)


def test_lsd_of_a_tilt_is_its_size():
    """6.02 dB on the upper half, none below: alignment takes the median, the root mean square stays."""
    sound = noise(64000)
    spectrum = torch.fft.rfft(sound)
    spectrum[len(spectrum) // 2 :] *= 2
    tilted = torch.fft.irfft(spectrum, n=len(sound))
    assert lsd_db(sound, tilted) == pytest.approx(6.02 * 0.5**0.5, abs=1.4)


def test_perceptual_metrics_if_installed(speech):
    for name, metric in installed(judges=True).items():
        same, worse = metric(speech, speech), metric(speech, speech + noise(len(speech)))
        assert badness(name, same) < badness(name, worse) and math.isfinite(worse), name
        assert math.isnan(metric(torch.zeros(100), torch.zeros(100)))


def test_badness_turns_every_metric():
    assert badness("lsd_db", 3) > badness("lsd_db", 2)
    assert badness("si_sdr_db", 3) < badness("si_sdr_db", 2)
    assert badness("hf_ratio_db", -5) > badness("hf_ratio_db", 2)


@pytest.fixture
def folders(tmp_path):
    """Three references and their estimates: an equal one, a noisy one, one with another suffix."""
    a, b = tmp_path / "a", tmp_path / "b"
    for name, scale in (("same.wav", 0.0), ("deep/noisy.wav", 1.0)):
        write_audio(a / name, noise(), 16000)
        write_audio(b / name, noise() + scale * noise(seed=1), 16000)
    (a / "song.mp3").write_bytes(b"")
    soundfile.write(a / "song.mp3", noise().numpy(), 16000)
    write_audio(b / "song.mp3.wav", noise(), 16000)
    return a, b


def test_pairs_are_found_by_name(folders):
    assert [(name, ref.name) for name, ref, _ in pair_files(*folders)] == [
        ("deep/noisy.wav", "noisy.wav"), ("same.wav", "same.wav"), ("song.mp3.wav", "song.mp3"),
    ]  # fmt: skip


def test_impossible_pairs_are_refused(folders, tmp_path):
    a, b = folders
    with pytest.raises(UserError, match="no such"):
        pair_files(a, tmp_path / "c")
    with pytest.raises(UserError, match="two folders or two files"):
        pair_files(a, b / "same.wav")
    write_audio(b / "alone.wav", noise(), 16000)
    with pytest.raises(UserError, match=r"no reference in .* for alone\.wav"):
        pair_files(a, b)


def test_rows_and_summary(folders):
    rows, failures = evaluate_pairs(pair_files(*folders))
    assert not failures and [row["file"] for row in rows] == ["deep/noisy.wav", "same.wav", "song.mp3.wav"]
    lines = {name: rest for name, *rest in summarize(rows)}
    assert set(METRICS) <= set(lines) and lines["si_sdr_db"][2] == "deep/noisy.wav"
    values = [row["si_sdr_db"] for row in rows]
    assert lines["si_sdr_db"][0] == pytest.approx(sum(values) / 3) and lines["si_sdr_db"][1] == sorted(values)[1]


def test_nan_is_left_out():
    rows = [{"file": "a", "stoi": math.nan}, {"file": "b", "stoi": 0.5}]
    assert summarize(rows) == [("stoi", 0.5, 0.5, "b")] and summarize([rows[0]]) == [] and summarize([]) == []


def test_the_verb(folders, tmp_path, capsys):
    target = tmp_path / "m.csv"
    command = ["evaluate", *map(str, folders), "-o", str(target)]
    assert main(command) == 0 and "deep/noisy.wav" in capsys.readouterr().out
    table = list(csv.DictReader(target.open()))
    assert len(table) == 3 and float(table[0]["log_mel_mae_db"]) > float(table[1]["log_mel_mae_db"])
    assert main(command) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert main([*command[:-1], str(tmp_path / "m.txt")]) == 2 and ".csv" in capsys.readouterr().err


def test_json_lines_are_those_of_versa(folders, tmp_path):
    target = tmp_path / "m.jsonl"
    assert main(["evaluate", *map(str, folders), "-o", str(target)]) == 0
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["key"] for row in rows] == ["deep/noisy.wav", "same.wav", "song.mp3.wav"]
    assert rows[1]["log_mel_mae_db"] == pytest.approx(0, abs=1e-3) and set(METRICS) < rows[0].keys()
    write_jsonl(target, [{"file": "a", "pesq_wb": math.nan, "stoi": 0.5}])
    assert target.read_text() == '{"key": "a", "pesq": null, "stoi": 0.5}\n'


def test_a_file_that_does_not_fit_is_listed(folders, tmp_path, capsys):
    write_audio(folders[1] / "same.wav", noise(8000), 16000)
    (folders[1] / "deep" / "noisy.wav").write_bytes(b"RIFF")
    target = tmp_path / "m.csv"
    assert main(["evaluate", *map(str, folders), "-o", str(target)]) == 2
    errors = capsys.readouterr().err
    assert "not the same length" in errors and "noisy.wav" in errors and "2 of 3 files failed" in errors
    assert len(list(csv.DictReader(target.open()))) == 1


QUIET = {"zeros": 0.0, "a constant": 0.3, "denormal": 1e-40}
LOUD = {"noise": lambda x: x, "quiet noise": lambda x: x * 1e-3, "half": lambda x: x * (torch.arange(len(x)) < 16000)}


@pytest.mark.parametrize("quiet", [*QUIET, "rounding"])
@pytest.mark.parametrize("loud", LOUD)
def test_silence_does_not_spoil_a_mean(quiet, loud):
    """A distance that is relative to the reference was two million where that is silent."""
    silence = noise() * 1e-7 if quiet == "rounding" else torch.full((32000,), QUIET[quiet])
    sound = LOUD[loud](noise(seed=1))
    for name, metric in METRICS.items():
        assert all(abs(metric(*pair)) <= 100 for pair in ((silence, sound), (sound, silence))), name
    assert mrstft(silence, sound) == pytest.approx(mrstft(sound, silence), rel=0.1)  # as bad as the loss of all of it
    assert mrstft(silence, silence) == pytest.approx(0, abs=1e-6)
    ordinary = [{"file": name, **measure(noise(), sound)} for name in "abc"]
    rows = [*ordinary, {"file": "silence", **measure(silence, sound)}]
    (mean,) = (mean for name, mean, _, _ in summarize(rows) if name == "mrstft")
    assert mean < 10


@pytest.mark.parametrize("name", ["träne", "Ångström", "が", "한국", "e\u0323\u0301", "plain", os.fsdecode(b"caf\xe9")])
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC"), ("NFD", "NFD")])
def test_names_match_in_every_spelling_of_unicode(tmp_path, name, forms):
    """macOS and some archives decompose letters; folders too, and with the suffix kept."""
    folders = tmp_path / "a", tmp_path / "b"
    spelt = [unicodedata.normalize(form, f"{name}/{name}") for form in forms]
    write_audio(folders[0] / f"{spelt[0]}.wav", noise(1000), 16000)
    for suffix in (".flac", ".wav.flac"):
        write_audio(folders[1] / f"{spelt[1]}{suffix}", noise(1000), 16000)
    assert [reference for _, reference, _ in pair_files(*folders)] == [folders[0] / f"{spelt[0]}.wav"] * 2


def test_the_same_spelling_comes_first(tmp_path):
    """Both spellings are two files on Linux."""
    forms = [unicodedata.normalize(form, "é.wav") for form in ("NFC", "NFD")]
    for folder in ("a", "b"):
        for name in forms:
            write_audio(tmp_path / folder / name, noise(1000), 16000)
    pairs = pair_files(tmp_path / "a", tmp_path / "b")
    assert len(pairs) == 2 and all(reference.name == estimate.name for _, reference, estimate in pairs)


def test_measure_has_everything(speech):
    assert set(measure(speech, speech)) == set(METRICS) | set(installed())
    assert set(installed()) | set(JUDGES) >= set(installed(judges=True)) >= set(installed())
