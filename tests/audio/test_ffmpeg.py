"""What ffmpeg reads of a file from a stranger: the file itself, whatever its name and whatever it calls itself."""

import os
import shutil
import subprocess

import numpy as np
import pytest

from ddcm.audio import ffmpeg
from ddcm.audio.decode import duration_s
from ddcm.audio.files import read_audio
from ddcm.cli.main import main
from ddcm.errors import UserError
from tests.conftest import EXAMPLES, made

needed = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg installed")
NAMES = ["12:30.m4a", "-i.m4a", "--help.m4a", "%03d.m4a", "a%d.m4a", "concat:a.m4a", "file:x.m4a", "http:x.m4a",
         "pipe:0.m4a", "a|b.m4a", "x?*.m4a", "[1].m4a", "data:,x.m4a", "subfile,,start,0,end,9,,:x.m4a", "crypto:x.m4a",
         "a\nb.m4a", "音 楽.m4a", "$(x).m4a", os.fsdecode(b"caf\xe9.m4a"), "fd:.m4a", "C:x.m4a"]  # fmt: skip
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT4S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="audio/mp4"><Representation '
    'id="1" bandwidth="128000"><BaseURL>secret.m4a</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile secret.m4a\n",
    "ffconcat, absolute": "ffconcat version 1.0\nfile '{folder}/secret.m4a'\n",
    "ffconcat, url": "ffconcat version 1.0\nfile 'file:{folder}/secret.m4a'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsecret.m4a\n#EXT-X-ENDLIST\n",
    "hls, transport stream": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "hls, url": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{folder}/secret.ts\n#EXT-X-ENDLIST\n",
    "hls, concat": "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:9,\nconcat:{folder}/secret.ts\n#EXT-X-ENDLIST\n",
    "dash": DASH,
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "m3u": "secret.m4a\n",
    "pls": "[playlist]\nFile1=secret.m4a\n",
    "asx": '<ASX version="3.0"><Entry><Ref href="secret.m4a"/></Entry></ASX>',
    "xspf": '<?xml version="1.0"?><playlist><trackList><track><location>secret.m4a</location></track></trackList>',
    "srt": "1\n00:00:00,000 --> 00:00:04,000\nhello\n\n",
    "webvtt": "WEBVTT\n\n00:00.000 --> 00:04.000\nhello\n",
    "ass": "[Script Info]\nTitle: x\n[Events]\nDialogue: 0,0:00:00.00,0:00:04.00,D,hello\n",
    "vobsub": "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n",
    "binaural beats": "-SE\nx: 100+10/20\nNOW x\n",
    "ffmetadata": ";FFMETADATA1\ntitle=x\n",
    "rtsp": "rtsp://127.0.0.1/x\n",
    "lavfi": "sine=f=440:d=2",
    "concat": "concat:{folder}/secret.ts",
}


def convert(source, *targets):
    for target in targets:
        subprocess.run(["ffmpeg", "-v", "error", "-i", source, f"file:{target}"], check=True)


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secret")
    convert(EXAMPLES / "bird.flac", folder / "secret.m4a", folder / "secret.ts")
    return folder


@needed
@pytest.mark.parametrize("suffix", ["m4a", "mp3", "wav", "webm"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_reads_no_other_file(secret, monkeypatch, kind, suffix):
    monkeypatch.chdir(secret)
    path = secret / f"{kind.replace(', ', '-')}.{suffix}"
    path.write_text(PLAYLISTS[kind].format(folder=secret))
    with pytest.raises(UserError, match="not readable as audio"):
        read_audio(path)
    assert duration_s(path) == path.stat().st_size / 16000  # the guess
    path.unlink()


@needed
@pytest.mark.parametrize("kind", ["ffconcat", "hls, transport stream"])
def test_a_playlist_would_be_read_without_the_closed_list(secret, monkeypatch, kind):
    """The files above are what ffmpeg follows, so that the tests above test something."""
    monkeypatch.chdir(secret)
    path = secret / "follow.m4a"
    path.write_text(PLAYLISTS[kind].format(folder=secret))
    monkeypatch.setattr(ffmpeg, "DEMUXERS", ffmpeg.DEMUXERS + ",concat,hls")
    assert len(read_audio(path)) > 10_000


@needed
def test_a_playlist_through_the_command(secret, tmp_path, capsys):
    (secret / "x.m4a").write_text(PLAYLISTS["ffconcat"])
    command = ["reconstruct", str(secret / "x.m4a"), "-o", str(tmp_path / "out"), "--backbone", "tiny"]
    assert main([*command, "--quantizer", "none"]) == 2
    assert "x.m4a: not readable as audio" in capsys.readouterr().err and not made(tmp_path / "out")
    (secret / "x.m4a").unlink()


@needed
def test_names_are_not_interpreted(secret, tmp_path, monkeypatch):
    """Relative to the current folder, as a user types them."""
    monkeypatch.chdir(tmp_path)
    expected = read_audio(secret / "secret.m4a")
    for name in NAMES:
        shutil.copy(secret / "secret.m4a", tmp_path / name)
        assert read_audio(name).equal(expected), name
        assert duration_s(name) == pytest.approx(len(expected) / 16000, abs=0.05)


@needed
def test_names_through_the_command(secret, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(secret / "secret.m4a", tmp_path / "12:30.m4a")
    assert main(["reconstruct", "12:30.m4a", "-o", "out", "--backbone", "tiny", "--quantizer", "none"]) == 0
    assert made(tmp_path / "out") == {"12:30.wav"}


@needed
def test_the_reason_is_the_right_one(secret, tmp_path, monkeypatch):
    """A missing program, a playlist, a damaged file, and one without sound."""
    whole = (secret / "secret.m4a").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "list.m4a").write_text(PLAYLISTS["ffconcat"])
    video = ["-f", "lavfi", "-i", "testsrc=d=0.2:s=16x16", tmp_path / "mute.m4v"]
    subprocess.run(["ffmpeg", "-v", "error", *video], check=True)
    for name, says in {"cut": "moov atom not found", "list": "a playlist", "mute": "no audio in it"}.items():
        (path,) = tmp_path.glob(f"{name}.*")
        with pytest.raises(UserError, match=says) as caught:
            read_audio(path)
        assert "installed" not in str(caught.value) and str(path) in str(caught.value)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"secret.m4a: .*ffmpeg, which is not installed") as caught:
        read_audio(secret / "secret.m4a")
    assert "damaged" not in str(caught.value) and duration_s(secret / "secret.m4a") > 0


@needed
@pytest.mark.parametrize("suffix", ["m4a", "aac", "webm", "mka", "wma", "ac3", "tta", "wv", "oga", "mp4"])
@pytest.mark.parametrize("part", [0.31, 0.55, 0.8])
def test_what_is_cut_off_is_refused(tmp_path, suffix, part):
    path = tmp_path / f"a.{suffix}"
    options = ["-movflags", "+faststart"] if suffix in ("m4a", "mp4") else []
    subprocess.run(["ffmpeg", "-v", "error", "-i", EXAMPLES / "bird.flac", *options, path], check=True)
    audio, whole = read_audio(path), read_audio(EXAMPLES / "bird.flac")
    assert abs(len(audio) - len(whole)) < 2000 and float(audio.abs().max()) > 0.1
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * part)])
    with pytest.raises(UserError, match=r"damaged or truncated|truncated|not readable"):
        read_audio(path)


@needed
def test_several_mp4_files_are_not_read_as_the_first(secret, tmp_path):
    (tmp_path / "two.m4a").write_bytes((secret / "secret.m4a").read_bytes() * 2)
    with pytest.raises(UserError, match="only the first"):
        read_audio(tmp_path / "two.m4a")


@needed
def test_a_damaged_packet_is_reported(secret, tmp_path, caplog):
    data = bytearray((secret / "secret.m4a").read_bytes())
    middle = data.index(b"mdat") + 8000
    data[middle : middle + 300] = bytes(range(100)) * 3
    (tmp_path / "a.m4a").write_bytes(data)
    assert len(read_audio(tmp_path / "a.m4a")) > 10_000
    assert "a.m4a: damaged in places" in caplog.text


@needed
def test_channels_are_averaged(tmp_path):
    """As libsndfile's are, whatever their order means."""
    import soundfile

    samples = np.random.default_rng(0).normal(0, 0.05, (16000, 6))
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="PCM_16")
    convert(tmp_path / "a.wav", tmp_path / "a.wv")
    assert np.abs(read_audio(tmp_path / "a.wv") - read_audio(tmp_path / "a.wav")).max() < 1e-6
