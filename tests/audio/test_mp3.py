"""An mp3 is read to its end without a header that declares its length, with a wrong one, and with several."""

import struct

import numpy as np
import pytest

from ddcm.audio.decode import duration_s
from ddcm.audio.files import read_audio
from tests.audio.test_decode import APE, ID3, RATE, SAMPLES, TAG, check, without_xing, write


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("tags", ["none", "both"])
def test_mp3_without_its_length(tmp_path, mode, rate, tags):
    """VBR was read to a third, CBR refused. What an encoder adds at both ends is not known without its header."""
    samples = SAMPLES[: 24000 * rate // 48000]
    whole = write(tmp_path / "whole.mp3", "mp3", samples, rate, bitrate_mode=mode)
    data = without_xing(whole)
    if tags == "both":
        data = b"ID3\x04\0\0" + struct.pack(">I", 20) + bytes(20) + data + b"TAG" + bytes(125)
    (tmp_path / "a.mp3").write_bytes(data)
    expected = read_audio(tmp_path / "whole.mp3").numpy()
    check(tmp_path / "a.mp3", expected, 4 * 1152 * RATE // rate, compare=False)
    assert duration_s(tmp_path / "a.mp3") > duration_s(tmp_path / "whole.mp3") - 1e-6
    audio = read_audio(tmp_path / "a.mp3").numpy()
    middle = expected[len(expected) // 4 : len(expected) // 2]
    places = np.lib.stride_tricks.sliding_window_view(audio, len(middle))
    assert min(np.abs(place - middle).mean() for place in places) < 3e-3  # the same sound, only later


@pytest.mark.parametrize("tags", [b"", TAG, ID3, APE, APE + TAG])
def test_tags_are_no_second_recording(tmp_path, tags):
    """Nor does their length count: the samples are those without them."""
    data = write(tmp_path / "plain.mp3", "mp3")
    (tmp_path / "a.mp3").write_bytes(data + tags)
    assert read_audio(tmp_path / "a.mp3").equal(read_audio(tmp_path / "plain.mp3"))


@pytest.mark.parametrize("front", [bytes(3000), ID3 + bytes(2000), b"\x17" * 500, ID3 + b"\xff\xfb\x90\x64" * 9])
def test_mp3_that_begins_with_something_else(tmp_path, front):
    """Padding behind a tag, or a broadcast that was recorded from the middle of a frame on."""
    data = without_xing(write(tmp_path / "whole.mp3", "mp3"))
    for content in (front + data, data[150:]):
        (tmp_path / "a.mp3").write_bytes(content)
        assert abs(len(read_audio(tmp_path / "a.mp3")) - 24000) < 4 * 1152
        assert abs(duration_s(tmp_path / "a.mp3") - 1.5) < 0.3


@pytest.mark.parametrize("between", [b"", bytes(700), b"LYRICSBEGIN" + b"la " * 90, TAG + bytes(99), APE + ID3])
@pytest.mark.parametrize("bare", [False, True])
def test_mp3_files_with_something_between_them(tmp_path, between, bare):
    whole = write(tmp_path / "a.mp3", "mp3")
    data = without_xing(whole) if bare else whole
    (tmp_path / "a.mp3").write_bytes(between.join([data] * 3))
    assert abs(len(read_audio(tmp_path / "a.mp3")) - 72000) <= (12 * 1152 if bare else 0)


@pytest.mark.parametrize("frames, size", [(0, None), (5, None), (5, 9), (None, 9), (None, 0), (20, 0), (0, 0)])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_a_wrong_number_of_frames_is_not_believed(tmp_path, frames, size, mode):
    data = bytearray(write(tmp_path / "a.mp3", "mp3", bitrate_mode=mode))
    at = max(data[:200].find(b"Xing"), data[:200].find(b"Info")) + 8
    for place, value in ((at, frames), (at + 4, size)):
        if value is not None:
            data[place : place + 4] = struct.pack(">I", value)
    (tmp_path / "a.mp3").write_bytes(data)
    assert abs(len(read_audio(tmp_path / "a.mp3")) - 24000) < 4 * 1152
    assert abs(duration_s(tmp_path / "a.mp3") - 1.5) < 0.3


@pytest.mark.parametrize("order", ["xb", "bx", "xbx", "bxb", "xxb"])
def test_mp3_streams_with_and_without_a_header(tmp_path, order):
    with_header = write(tmp_path / "a.mp3", "mp3")
    streams = {"x": with_header, "b": without_xing(with_header)}
    (tmp_path / "a.mp3").write_bytes(b"".join(streams[letter] for letter in order))
    assert abs(len(read_audio(tmp_path / "a.mp3")) - 24000 * len(order)) < 4 * 1152 * order.count("b")
