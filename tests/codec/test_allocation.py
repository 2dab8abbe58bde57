"""Windows of one file with different numbers of atoms."""

from dataclasses import replace
from itertools import pairwise

import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddcm.audio.level import measure_level
from ddcm.audio.windows import window_mel
from ddcm.backbone import load
from ddcm.codec.allocation import LEAST, MOST, share_out
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.compress import compress
from ddcm.codec.decompress import decompress
from ddcm.codec.format import describe, pack, unpack
from ddcm.codec.header import EVEN, validate
from ddcm.codec.step_schedule import ExplicitSchedule
from ddcm.errors import UserError
from tests.conftest import EXAMPLES, ROOT


@pytest.fixture(scope="module")
def uneven(speech):
    """Three windows: silence, speech, silence and speech."""
    part = speech.repeat(4)[: 16000 * 8]
    return torch.cat([torch.zeros(16000 * 9), part, torch.zeros(16000 * 5), part[: 16000 * 4]])


@pytest.fixture
def shares(monkeypatch):
    """A random backbone finds all windows alike; with this they differ."""
    monkeypatch.setattr("ddcm.codec.compress.choose_shares", lambda *_: (20, 64, 150))


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_windows_of_any_share_decode_in_any_batch(tiny, uneven, shares, batch_size):
    kept = []
    settings = CodecSettings(kbps=1, steps=3, verify=True)
    data = compress(uneven, tiny, settings, batch_size=batch_size, on_latent=kept.append)
    header, payload = unpack(data)
    assert header.shares == (20, 64, 150)
    assert abs(len(data) / 125 / header.seconds - 1) < 0.03
    bits = [b - a for a, b in pairwise(header.offsets)]
    assert sorted(range(3), key=bits.__getitem__) == sorted(range(3), key=header.shares.__getitem__)
    assert len(payload) == -(-sum(bits) // 8)
    for other in (1, 2, 3):
        latent = decompress(data, tiny, batch_size=other).latent
        torch.testing.assert_close(latent, torch.cat(kept), atol=1e-3, rtol=1e-3)


def test_nothing_is_shared_out_where_there_is_nothing_to_choose(tiny, uneven, shares, tmp_path):
    one = unpack(compress(uneven[: 16000 * 3], tiny, CodecSettings(kbps=1, steps=3)))[0]
    off = unpack(compress(uneven, tiny, CodecSettings(kbps=1, steps=3, allocate=False)))[0]
    classic = unpack(compress(uneven, tiny, CodecSettings(mode="classic", kbps=1, steps=3)))[0]
    assert not one.shares and not off.shares and not classic.shares
    (tmp_path / "a.ddcm").write_bytes(compress(uneven, tiny, CodecSettings(kbps=1, steps=3)))
    facts = describe(tmp_path / "a.ddcm")
    assert len(facts["bits of a window"].split()) == 3 and "shares" not in facts


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_harder_windows_get_more(errors):
    shares = share_out(torch.tensor(errors))
    if len(set(errors)) == 1:
        assert shares == ()
    for (a, share), (b, other) in pairwise(sorted(zip(errors, shares, strict=False))):
        assert a <= b and share <= other and share >= LEAST and other <= MOST


@settings(deadline=None)
@given(st.data())
def test_shares_are_in_the_file_and_bound_its_payload(tiny_header, data):
    windows = len(tiny_header.layout.starts)
    shares = tuple(data.draw(st.lists(st.integers(1, 255), min_size=windows, max_size=windows)))
    header = replace(tiny_header, shares=shares)
    payload = bytes(-(-header.offsets[-1] // 8))
    packed = pack(header, payload)
    assert unpack(packed) == (header, payload)
    for share, bits in zip(shares, (b - a for a, b in pairwise(header.offsets)), strict=True):
        assert share != EVEN or bits == tiny_header.bits_of(0)
    for wrong in (shares[1:], (*shares, 64), (0, *shares[1:]), (256, *shares[1:])):
        with pytest.raises(UserError, match="shares"):
            pack(replace(header, shares=wrong), payload)


@pytest.fixture(scope="module")
def tiny_header(tiny, uneven):
    return unpack(compress(uneven, tiny, CodecSettings(kbps=1, steps=3, allocate=False)))[0]


def test_a_recording_of_two_kinds_comes_nearer():
    backbone = load(str(ROOT / "checkpoints" / "pocket"))
    parts = [soundfile.read(EXAMPLES / f"{name}.flac", dtype="float32")[0] for name in ("ambience", "bird")]
    audio = torch.cat([torch.from_numpy(part / abs(part).max()).repeat(4)[: 16000 * 6] for part in parts])
    level, errors, sizes = measure_level(audio), [], []
    for allocate in (False, True):
        data = compress(audio, backbone, CodecSettings(kbps=1, steps=10, mel_weight=0, allocate=allocate))
        layout, out = unpack(data)[0].layout, decompress(data, backbone, vocoder="backbone")
        mels = [window_mel(audio, level, layout, i, backbone.mel_spec) for i in range(len(layout.starts))]
        rows = zip(out.latent.split(1), mels, strict=True)
        errors.append(sum(float((backbone.decode(z) - mel).abs().mean()) for z, mel in rows))
        sizes.append(len(data))
    assert abs(sizes[1] / sizes[0] - 1) < 0.02 and errors[1] < 0.97 * errors[0]


@pytest.mark.parametrize("shares", [(), (64, 64, 64), (20, 64, 255)])
def test_a_file_without_any_atom_is_refused(tiny_header, shares):
    header = replace(tiny_header, schedule=ExplicitSchedule((900, 500, 0), (0, 0)), shares=shares)
    assert set(header.offsets) == {0}
    for payload in (b"", b"1234"):
        with pytest.raises(UserError, match=r"cannot hold|next to no bits"):
            validate(header, payload)
