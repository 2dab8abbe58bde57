"""``--db``: the rate whose file has a mel error."""

import logging
import math

import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddcm.audio.layout import even_layout
from ddcm.audio.level import measure_level
from ddcm.audio.mel import mel_error_db
from ddcm.audio.windows import window_mel
from ddcm.backbone import load
from ddcm.cli.main import main
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.compress import compress
from ddcm.codec.decompress import decompress
from ddcm.codec.quality import HIGHEST, LOWEST, TOLERANCE_DB, TRIALS, cut_excerpt, find_kbps
from ddcm.errors import UserError
from tests.conftest import EXAMPLES, ROOT


@settings(deadline=None)
@given(
    st.floats(0.3, 1.5),
    st.floats(1.5, 6),
    st.floats(0.2, 1.2),
    st.floats(-0.95, 0.95),
    st.floats(0, 0.03),
    st.integers(0, 99),
)
def test_a_few_trials_find_the_rate(floor, above, decay, place, ripple, seed):
    """Errors that fall towards ``floor``, a little unevenly, as schedules of neighbouring rates do."""
    tried = []

    def error_at(kbps: float) -> float:
        tried.append(kbps)
        return floor + above * kbps**-decay + ripple * math.sin(seed + 9 * math.log(kbps))

    middle, half = math.log2(LOWEST * HIGHEST) / 2, math.log2(HIGHEST / LOWEST) / 2
    db = error_at(2 ** (middle + place * half))
    tried.clear()
    found = error_at(find_kbps(error_at, db))
    assert len(tried) <= TRIALS + 1 and abs(found - db) <= max(TOLERANCE_DB, 0.1 * above)


def test_what_no_rate_reaches_is_refused():
    with pytest.raises(UserError, match=r"0.5 dB cannot be reached: at 16 kbps the mels are 0.70 dB apart"):
        find_kbps(lambda kbps: 0.7 + 1e-3 / kbps, 0.5)


def test_less_than_the_lowest_rate_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert find_kbps(lambda kbps: 2 / kbps**0.1, 9.0) == LOWEST
    assert "no file of 9 dB: the nearest has 2.30 dB at 0.25 kbps" in caplog.text


@pytest.mark.parametrize("samples", [100, 4 * 163840, 5 * 163840, 20 * 163840 + 7])
def test_long_recordings_are_tried_in_parts(samples):
    audio = torch.arange(samples, dtype=torch.float32)
    excerpt = cut_excerpt(audio, 160)
    if samples <= 4 * 163840:
        assert torch.equal(excerpt, audio)
    else:
        assert len(excerpt) == 4 * 163840 and excerpt[0] == 0 and excerpt[-1] == audio[-1]
        assert len(excerpt.unique()) == len(excerpt)


def test_the_file_has_the_error_that_was_asked_for():
    backbone, (audio, _) = load(str(ROOT / "checkpoints" / "pocket")), soundfile.read(EXAMPLES / "melodic.flac")
    audio, steps, db = torch.from_numpy(audio[:16000]).float(), [], 2.0
    data = compress(audio, backbone, CodecSettings(db=db, steps=10), on_step=lambda *s: steps.append(s))
    mel = window_mel(audio, measure_level(audio), even_layout(len(audio), 160), 0, backbone.mel_spec)
    reached = mel_error_db(decompress(data, backbone, vocoder="backbone").mel, mel)
    assert abs(reached - db) <= TOLERANCE_DB + 0.01
    shares = [done / total for done, total in steps]
    assert shares == sorted(shares) and shares[-1] == 1


@pytest.mark.parametrize("settings", [dict(kbps=1.0), dict(quality="low"), dict(mode="vq")])
def test_quality_excludes_a_rate(settings):
    with pytest.raises(UserError, match="db"):
        CodecSettings(db=2.0, **settings)


@pytest.mark.parametrize("db", ["0", "-1", "nan", "inf"])
def test_errors_that_are_no_error_are_refused(db, tmp_path, capsys):
    assert main(["compress", str(EXAMPLES / "bird.flac"), "-o", str(tmp_path / "a.ddcm"), "--db", db]) == 2
    assert "db" in capsys.readouterr().err and not list(tmp_path.iterdir())
