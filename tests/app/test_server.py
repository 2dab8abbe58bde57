"""The page through its API: each visitor gets their own results, no file stays, errors are one line."""

import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ddcm.app.server_options import Limits
from ddcm.audio.files import encode_audio, read_audio, write_audio
from ddcm.backbone.tiny import tiny_backbone
from ddcm.cli.main import main
from ddcm.pipeline import DDCMPipeline
from tests.conftest import EXAMPLES, ROOT
from tests.helpers.served import PASSWORD, free_port, served, tone

gradio_client = pytest.importorskip("gradio_client")
handle_file = gradio_client.handle_file
LIMITS = Limits(max_seconds=4, max_megabytes=0.5)
WAIT_S = 120


@pytest.fixture(scope="module")
def server(tiny):
    with served(tiny, LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def visitor(server, tmp_path_factory):
    with _visitor(server, tmp_path_factory.mktemp("visitor")) as client:
        yield client


def _visitor(server, folder: Path):
    client = gradio_client.Client(
        server.address, auth=("anyone", PASSWORD), verbose=False, download_files=folder / "got"
    )  # fmt: skip
    return closing(client)


def _wait_until(condition, seconds: float = WAIT_S) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


def test_eight_visitors_each_get_their_own(server, tmp_path):
    inputs = [tone(tmp_path / f"{i}.wav", 0.5 + i / 20, 300 + 100 * i) for i in range(8)]
    files_before = server.files()

    def visit(number):
        with _visitor(server, tmp_path / str(number)) as client:
            return client.predict(
                audio=handle_file(inputs[number]), prompt="", steps=2, seed=number, api_name="/transform"
            )  # fmt: skip

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(visit, range(8)))
    for number, (audio, picture, metrics, settings, before) in enumerate(results):
        expected = server.pipe.transform(read_audio(inputs[number]), 16000, steps=2, seed=number)
        assert Path(audio).read_bytes() == encode_audio(expected.audio, 16000)
        assert Path(before).read_bytes() == encode_audio(read_audio(inputs[number]), 16000)
        assert settings["seed"] == number and metrics["log_mel_mae_db"] > 0
        assert Path(picture).stat().st_size > 10_000
    assert _wait_until(lambda: not server.files() - files_before)  # all visitors have left, and their files are deleted


def test_the_codec_there_and_back(server, visitor):
    source = EXAMPLES / "bird.flac"
    file, audio, _, metrics, facts, _ = visitor.predict(
        audio=handle_file(source), kbps=2, steps=2, api_name="/compress"
    )  # fmt: skip
    data = Path(file).read_bytes()
    assert data == server.pipe.compress(read_audio(source), 16000, kbps=2.0, steps=2)
    assert metrics["bytes"] == len(data) and facts["what"] == "ddcm file"
    again, _, _, facts_again, = visitor.predict(file=handle_file(file), api_name="/decompress")  # fmt: skip
    assert Path(again).read_bytes() == Path(audio).read_bytes() and facts == facts_again
    assert Path(again).read_bytes() == encode_audio(server.pipe.decompress(data).audio, 16000)
    undecoded = visitor.predict(audio=handle_file(source), listen=False, steps=2, api_name="/compress")
    assert undecoded[0] and not undecoded[1]


def test_the_other_verbs(server, visitor, tmp_path):
    generated = visitor.predict(prompt="", duration_s=1, steps=2, seed=3, api_name="/generate")
    assert Path(generated[0]).read_bytes() == encode_audio(server.pipe.generate("", 1.0, steps=2, seed=3).audio, 16000)
    source = tone(tmp_path / "a name with ümlaut.wav", 0.5)
    done = visitor.predict(audio=handle_file(source), recipe="quantised", api_name="/reconstruct")
    expected = server.pipe.reconstruct(read_audio(source), 16000, "quantised").audio
    assert Path(done[0]).read_bytes() == encode_audio(expected, 16000) and done[3]["quantizer"] == "hard"


def test_the_documented_example_runs(server, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(EXAMPLES)
    code = code.replace("http://127.0.0.1:7860", server.address).replace('"word"', repr(PASSWORD))
    exec(compile(code, "docs/serve.md", "exec"), {})
    assert (tmp_path / "bird.ddcm").stat().st_size > 100 and (tmp_path / "bird.wav").stat().st_size > 10_000


def ogg(path, seconds) -> bytes:
    soundfile.write(path, np.sin(np.arange(16000 * seconds)) * 0.1, 16000, format="OGG")
    return path.read_bytes()


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda path: tone(path, 4.5), "longer than 4 s"),
        (lambda path: path.write_text("no sound"), "not readable as audio"),
        (lambda path: path.write_text("ffconcat version 1.0\nfile /etc/passwd\n"), "not readable as audio"),
        (lambda path: path.write_bytes(2 * ogg(path, 3)), "longer than 4 s"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: soundfile.write(path, np.zeros(0), 16000), "no samples"),
        (lambda path: soundfile.write(path, np.array([0.1, np.nan, 0.2]), 16000, subtype="FLOAT"), "NaN"),
        (lambda path: path.write_bytes(tone(path, 1).read_bytes()[:2000]), "truncated"),
    ],
)
def test_a_bad_recording_is_refused_in_one_line(visitor, tmp_path, write, message):
    path = tmp_path / "mine.wav"
    write(path)
    with pytest.raises(gradio_client.exceptions.AppError) as caught:
        visitor.predict(audio=handle_file(path), api_name="/reconstruct")
    line = str(caught.value)
    assert message in line and "mine.wav" in line and "\n" not in line and "/tmp" not in line


@pytest.mark.parametrize("rate, channels, frames", [(192_000, 1, 192_000), (8000, 8, 4000), (16000, 2, 1)])
def test_any_recording_works(visitor, tmp_path, rate, channels, frames):
    soundfile.write(tmp_path / "any.flac", np.zeros((frames, channels)), rate)
    audio, *_ = visitor.predict(audio=handle_file(tmp_path / "any.flac"), api_name="/reconstruct")
    assert len(read_audio(audio)) == max(1, round(frames * 16000 / rate))


@pytest.mark.parametrize(
    "endpoint, inputs, message",
    [
        ("/transform", {"recipe": "input-bsed"}, "input-bsed"),
        ("/transform", {"strength": 1.5}, "1.5"),
        ("/reconstruct", {"audio": None}, "bring a file first"),
        ("/compress", {"kbps": 1, "steps": 5000}, "steps 5000"),
        ("/generate", {"duration_s": 600}, "600"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(visitor, tmp_path, endpoint, inputs, message):
    if endpoint != "/generate":
        inputs = {"audio": handle_file(tone(tmp_path / "a.wav", 0.5))} | inputs
    with pytest.raises(Exception) as caught:  # Gradio raises several types
        visitor.predict(**inputs, api_name=endpoint)
    assert message in str(caught.value) and "\n" not in str(caught.value).strip()


def test_a_bad_file_is_refused_in_one_line(server, visitor, tmp_path):
    data = bytearray(server.pipe.compress(torch.randn(8000), 16000, steps=2))
    data[-5] ^= 1
    foreign = DDCMPipeline(tiny_backbone(seed=1)).compress(torch.randn(8000), 16000, steps=2)
    for content in (bytes(data), foreign, b"PK\x03\x04 something else"):
        (tmp_path / "other.ddcm").write_bytes(content)
        with pytest.raises(gradio_client.exceptions.AppError) as caught:
            visitor.predict(file=handle_file(tmp_path / "other.ddcm"), api_name="/decompress")
        assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


def test_too_large_is_refused(server, visitor, tmp_path):
    write_audio(tmp_path / "large.wav", torch.rand(300_000), 16000)
    with pytest.raises(Exception, match=r"413|size"):
        visitor.predict(audio=handle_file(tmp_path / "large.wav"), api_name="/reconstruct")
    assert not [path for path in server.files() if path.name == "large.wav"]


def test_the_comparison(visitor, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ddcm.evaluation.evaluate_files.installed", lambda *_: {}
    )  # the judges of other packages have tests of their own
    report, metrics = visitor.predict(audio=handle_file(tone(tmp_path / "a.wav", 0.3)), steps=2, api_name="/compare")
    assert "<html" in Path(report).read_text() and metrics["input"]["log_mel_mae_db"] == 0 and len(metrics) > 15


def test_cancel_stops_the_work(server, visitor):
    calls = []
    hook = server.pipe.backbone.unet.register_forward_hook(lambda *_: calls.append(1))
    try:
        job = visitor.submit(prompt="", duration_s=4, steps=200, api_name="/generate")
        assert _wait_until(lambda: len(calls) > 2)
        job.cancel()
        visitor.predict(prompt="", duration_s=0.5, steps=1, api_name="/generate")  # it does not wait
        assert len(calls) < 200
        count = len(calls)
        time.sleep(0.5)
        assert len(calls) == count
    finally:
        hook.remove()


def test_leaving_stops_the_work_and_deletes_the_files(server, tmp_path):
    calls = []
    hook = server.pipe.backbone.unet.register_forward_hook(lambda *_: calls.append(1))
    before = server.files()
    try:
        with _visitor(server, tmp_path) as client:
            client.predict(prompt="", duration_s=0.5, steps=1, seed=77, api_name="/generate")
            assert server.files() - before
            client.submit(prompt="", duration_s=4, steps=200, api_name="/generate")
            assert _wait_until(lambda: len(calls) > 3)
        assert _wait_until(lambda: not server.files() - before)
        time.sleep(0.5)
        assert len(calls) < 200
    finally:
        hook.remove()


def test_the_password_is_asked(server, tmp_path):
    import httpx

    asked = httpx.get(server.address)
    assert "<title>ddcm</title>" in asked.text and "content-security-policy" in asked.headers
    assert httpx.post(server.address).status_code == 405  # no page: no title
    for auth in (None, ("anyone", "a wrong word")):
        with pytest.raises((ValueError, gradio_client.exceptions.AuthenticationError)):
            gradio_client.Client(server.address, auth=auth, verbose=False)
    example = next(path for path in server.files() if path.name == "bird.flac")
    assert httpx.get(f"{server.address}gradio_api/file={example}").status_code == 401
    files = {"files": ("a.wav", b"abc")}
    assert httpx.post(f"{server.address}gradio_api/upload", files=files).status_code == 401


def test_the_server_fetches_nothing_and_shows_no_other_file(server, visitor):
    import httpx

    session = httpx.Client()
    session.post(f"{server.address}login", data={"username": "a", "password": PASSWORD})
    for path in ("gradio_api/file=http://127.0.0.1:1/x", "gradio_api/proxy=http://127.0.0.1:1/x",
                 f"gradio_api/file={ROOT / 'pyproject.toml'}", f"gradio_api/file={server.root}"):  # fmt: skip
        assert session.get(server.address + path).status_code in (403, 404), path
    elsewhere = {"path": "https://example.org/a.wav", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(gradio_client.exceptions.AppError, match="addresses are not fetched"):
        visitor.predict(audio=elsewhere, api_name="/reconstruct")
    assert "default-src 'self'" in session.get(server.address).headers["content-security-policy"]


def test_the_command_opens_and_closes_the_page(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    port = free_port()

    def terminate() -> None:
        """Once the page answers, or not at all within a minute."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=terminate, daemon=True).start()
    assert main(["serve", "--port", str(port), "--backbone", "tiny"]) == 0
    assert "ddcm is on http://127.0.0.1:" in capsys.readouterr().out
    assert not list(tmp_path.glob("ddcm-serve-*")) and signal.getsignal(signal.SIGTERM) == before


def test_a_taken_port_and_silly_flags(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", "--port", str(taken.getsockname()[1]), "--backbone", "tiny"]) == 2
    for flag, value in (("--max_seconds", "0"), ("--port", "70000"), ("--password", "")):
        assert main(["serve", flag, value, "--backbone", "tiny"]) == 2
    lines = capsys.readouterr().err.splitlines()[-4:]
    assert all(flag in line for flag, line in zip(("--port", "--max_sec", "--port", "--password"), lines, strict=True))
