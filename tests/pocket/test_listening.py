"""The table of clips to listen to, and the page beside it."""

import pytest
import soundfile

from ddcm.pipeline import DDCMPipeline
from pocket import listening
from tests.helpers.pocket_corpus import examples_as_corpus


def test_a_page_with_players_and_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(listening, "CHOICES", (("a bird", "effects", "bird"), ("no such", "music", "oboe")))
    monkeypatch.setattr(listening, "SECONDS", 1.28)
    ((title, _, audio),) = listening.choose(examples_as_corpus(tmp_path))
    assert (title, len(audio)) == ("a bird", 20480)
    row = listening.render(DDCMPipeline.from_pretrained("tiny"), title, "<b>bird</b>", audio, 0)
    listening.write([row], tmp_path / "out", "tiny")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "&lt;b&gt;" in page and page.count("<audio") == len(listening.WAYS) == len(row.files)
    for way, name in row.files.items():
        written, rate = soundfile.read(tmp_path / "out" / name)
        assert name in page and rate == 16000 and len(written) == len(row.sounds[way]) == 20480
    line = listening.table([row]).splitlines()[2]
    assert [float(cell) for cell in line.split("|")[3:6]] == pytest.approx(list(row.errors.values()), abs=0.006)
