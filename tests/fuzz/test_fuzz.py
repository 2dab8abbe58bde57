"""Damaged and hostile input: what once broke the package, a few hundred new cases of each kind, and many."""

from pathlib import Path

import pytest

pytest.importorskip("lightning")

from tests.fuzz import __main__ as command
from tests.fuzz.kinds import KINDS
from tests.fuzz.run import KNOWN, many, one, stored
from tests.fuzz.watch import watched

FEW = {"audio": 300, "ddcm": 300, "codebook": 300, "manifest": 300, "yaml": 60}
KNOWN_CASES = [(kind, name) for kind in KINDS for name in stored(KNOWN / kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_hundred_cases(kind):
    report = many(kind, 7, range(FEW[kind]))
    assert not report.found, report.found[0].trace
    assert report.outcomes["refused"] > FEW[kind] / 10 and report.outcomes["read"] > 0


@pytest.mark.parametrize("kind, name", KNOWN_CASES)
def test_what_was_found_stays_mended(tmp_path, kind, name):
    _, found = one(KINDS[kind], KINDS[kind].prepare(), stored(KNOWN / kind)[name], tmp_path)
    assert found is None, found.trace


def test_a_defect_would_be_found(tmp_path, monkeypatch):
    """In this process, where ``read_audio`` is replaced by one that fails on what the real one refuses."""
    from ddcm.audio import files as audio

    real = audio.read_audio

    def careless(path: Path):
        try:
            return real(path)
        except ValueError as error:
            raise KeyError("nobody expects this") from error

    monkeypatch.setattr(audio, "read_audio", careless)
    report = many("audio", 7, range(20))
    assert report.found and "KeyError" in report.found[0].what and report.outcomes["KeyError"] == len(report.found)


@pytest.mark.slow
def test_the_command(tmp_path, monkeypatch, capsys):
    words = ["fuzz", "--cases", "40", "--kinds", "audio", "manifest", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    assert command.main() == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["audio", "24"], ["manifest", "16"]
    ]  # fmt: skip


@pytest.mark.slow
def test_ten_thousand_damaged_ddcm_files(tmp_path):
    """Each is refused in a line, or has a right checksum over what can be decoded; all of it in less than 1 GiB."""
    report, peak = watched("ddcm", 1, range(10_000), tmp_path)
    assert not report.found and report.outcomes.total() == 10_000
    assert set(report.outcomes) == {"read", "refused"} and peak < 1 << 30
