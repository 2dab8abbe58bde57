"""Other codecs, as programs of Debian packages: Opus (opus-tools) and Codec2."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

from ddcm.audio.files import resample
from ddcm.evaluation.signal_metrics import log_mel_mae_db

RATE = 16000
Peer = Callable[[torch.Tensor], tuple[torch.Tensor, int, float, float]]
"""Audio (S,) at 16 kHz -> (decoded audio (S,), bytes, seconds to encode, seconds to decode)."""


def list_peers() -> dict[str, Peer]:
    """The codecs whose programs are installed, by name and rate in kbps."""
    programs: dict[str, Peer] = {}
    if shutil.which("opusenc") and shutil.which("opusdec"):
        programs["opus 6"] = lambda audio: _opus(audio, 6)
    if shutil.which("c2enc") and shutil.which("c2dec"):
        for bits in (1200, 2400, 3200):
            programs[f"codec2 {bits / 1000:g}"] = lambda audio, bits=bits: _codec2(audio, bits)
    return programs


def _opus(audio: torch.Tensor, kbps: int):
    with tempfile.TemporaryDirectory() as folder:
        plain, packed, back = (Path(folder) / name for name in ("a.wav", "a.opus", "b.wav"))
        soundfile.write(plain, audio.numpy(), RATE)
        small = ("--padding", 0, "--discard-comments")  # no bytes besides the audio
        encode_s = _run("opusenc", "--quiet", "--bitrate", kbps, *small, plain, packed)
        decode_s = _run("opusdec", "--quiet", "--rate", RATE, packed, back)
        decoded = torch.from_numpy(soundfile.read(back, dtype="float32")[0])
        return align(audio, decoded), packed.stat().st_size, encode_s, decode_s


def _codec2(audio: torch.Tensor, bits: int):
    with tempfile.TemporaryDirectory() as folder:
        plain, packed, back = (Path(folder) / name for name in ("a.raw", "a.c2", "b.raw"))
        at_8_khz = resample(audio.numpy(), RATE, 8000)
        (np.clip(at_8_khz, -1, 1) * 32767).astype("<i2").tofile(plain)
        encode_s = _run("c2enc", bits, plain, packed)
        decode_s = _run("c2dec", bits, packed, back)
        at_16_khz = resample(np.fromfile(back, "<i2").astype(np.float32) / 32768, 8000, RATE)
        return align(audio, torch.from_numpy(at_16_khz)), packed.stat().st_size, encode_s, decode_s


def _run(*words: object) -> float:
    begin = time.perf_counter()
    subprocess.run(list(map(str, words)), check=True, capture_output=True)
    return time.perf_counter() - begin


def align(audio: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """``decoded`` without the codec's delay, as long as ``audio``: the best shift in steps of 10 ms up to 100 ms."""

    def shifted(frames: int) -> torch.Tensor:
        moved = decoded[frames * 160 :][: len(audio)]
        return torch.nn.functional.pad(moved, (0, len(audio) - len(moved)))

    return min((shifted(frames) for frames in range(11)), key=lambda x: log_mel_mae_db(audio, x))
