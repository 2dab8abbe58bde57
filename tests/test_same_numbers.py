"""A sound has the same metrics in Python, in ``ddcm compare``, in ``ddcm evaluate`` of its file, and on the page."""

import csv
import logging

import pytest
import torch

from ddcm.app.server_options import Limits
from ddcm.app.service import Service
from ddcm.audio.files import limit_to_full_scale, read_audio, write_audio
from ddcm.cli import evaluation, options
from ddcm.cli.main import main
from ddcm.evaluation import compare, evaluate_files
from ddcm.evaluation.evaluate_files import measure
from ddcm.evaluation.signal_metrics import log_mel_mae_db
from ddcm.pipeline import DDCMPipeline
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import Codebook
from tests.conftest import EXAMPLES, ROOT

TOLERANCE_DB = 0.02
EXAMPLE_FILES = sorted(EXAMPLES.glob("*.flac"))


@pytest.fixture(scope="module")
def pipe():
    return DDCMPipeline.from_pretrained(ROOT / "checkpoints" / "pocket")


@pytest.mark.parametrize("example", EXAMPLE_FILES, ids=lambda path: path.stem)
def test_four_ways_to_a_number(pipe, example, tmp_path, monkeypatch):
    reference = read_audio(example)
    out = pipe.reconstruct(reference, 16000, "refined")
    numbers = {"Python": log_mel_mae_db(reference, out.audio)}

    monkeypatch.setattr(evaluate_files, "installed", lambda judges=False: {})  # they take seconds

    monkeypatch.setattr(compare, "list_cases", lambda quantised: [compare.Case("refined", "reconstruct", "refined")])
    monkeypatch.setattr(options, "load_pipeline", lambda *arguments, **more: pipe)
    assert evaluation.options is options and main(["compare", str(example), "-o", str(tmp_path / "report")]) == 0
    with (tmp_path / "report" / "metrics.csv").open() as file:
        (row,) = (row for row in csv.DictReader(file) if row["recipe"] == "refined")
    numbers["compare"] = float(row["log_mel_mae_db"])

    for kind in ("wav", "flac"):
        target = tmp_path / f"{example.stem}.{kind}"
        write_audio(target, out.audio, out.sample_rate)
        numbers[f"evaluate {kind}"] = evaluate(example, target)
    assert (read_audio(tmp_path / f"{example.stem}.wav") == limit_to_full_scale(out.audio, "")).all()

    (tmp_path / "page").mkdir()
    result = Service(pipe, Limits()).reconstruct(tmp_path / "page", lambda *step: None, example, "refined")
    numbers["page"] = result.metrics["log_mel_mae_db"]
    numbers["evaluate page"] = evaluate(example, result.audio)
    assert max(numbers.values()) - min(numbers.values()) < TOLERANCE_DB, numbers


def evaluate(reference, estimate) -> float:
    table = estimate.with_suffix(".csv")
    assert main(["evaluate", str(reference), str(estimate), "-o", str(table), "--overwrite"]) == 0
    with table.open() as file:
        return float(next(csv.DictReader(file))["log_mel_mae_db"])


@pytest.mark.parametrize("gain", [1e-4, 300.0])
def test_quiet_and_loud_sounds_are_measured_as_they_are_written(tiny, speech, tmp_path, monkeypatch, caplog, gain):
    """Far below full scale, where 16 bits leave noise, and above it, where a file is scaled. By every metric."""
    caplog.set_level(logging.ERROR)
    quantizer = HardQuantizer(codebook_size=4).eval().requires_grad_(False)
    tiny_pipe = DDCMPipeline(tiny, Codebook(quantizer, tiny.name, tiny.latent_digest, {}))
    monkeypatch.setattr(compare, "list_cases", lambda quantised: [compare.Case("matched", "reconstruct", "matched")])
    audio = speech[:16000] * gain
    entry = compare.compare(tiny_pipe, audio)[-1]
    write_audio(tmp_path / "a.wav", entry.audio, 16000)
    assert measure(audio, read_audio(tmp_path / "a.wav")) == pytest.approx(entry.metrics, rel=1e-6, nan_ok=True)
    assert torch.equal(entry.audio, read_audio(tmp_path / "a.wav"))
