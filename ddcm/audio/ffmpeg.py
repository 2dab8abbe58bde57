"""What libsndfile cannot read, by the program ffmpeg, where it is installed.

A file from a stranger may be a playlist, whatever its name: ffmpeg gets one local file by its absolute path, and
demuxers that open no other files.
"""

import logging
import os
import re
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from ddcm.errors import UserError, to_one_line

log = logging.getLogger(__name__)

# No playlists, image sequences, subtitles or devices: https://ffmpeg.org/ffmpeg-formats.html
DEMUXERS = (
    "3gp,aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,iff,ircam,loas,matroska,mlp,mov,"
    "mp3,mpc,mpc8,mpeg,mpegts,nistsphere,nut,ogg,oma,paf,pvf,qcp,rm,shn,sox,tak,truehd,tta,voc,w64,wav,wsd,wv,xwma"
)
BLOCK = 1 << 20  # numbers read at a time
LINES = 200  # of messages that are kept
CUT = re.compile(
    "partial file|ended prematurely|Truncating packet|Input buffer exhausted|incomplete frame"
    "|packet size too small|Invalid PCM packet|Input/output error|End of file"
)
PREFIX = re.compile(r"^(\[[^]]*\] *)+(file:.*: )?")
SHORT_S = 0.5  # a declared duration may be wrong by this much


def decode(path: Path, reason: str) -> Iterator[tuple[np.ndarray, int]]:
    """Pieces (n,) with the average of the channels, and the file's rate in Hz.

    Args:
        reason: why libsndfile cannot read the file.

    Raises UserError: no ffmpeg, no audio in the file, a kind that is not in ``DEMUXERS``, or a file that is cut off.
    """
    samples, rate = 0, 1
    with _run(path, reason, "-f", "au", "-c:a", "pcm_f32be", "-map_metadata", "-1", "pipe:1") as (output, messages):
        head = output.read(24)
        if len(head) == 24:
            _, offset, _, _, rate, channels = struct.unpack(">6I", head)
            output.read(offset - 24)
            while data := output.read(max(1, BLOCK // channels) * channels * 4):
                block = np.frombuffer(data, ">f4", len(data) // (4 * channels) * channels).reshape(-1, channels)
                samples += len(block)
                with np.errstate(invalid="ignore", over="ignore"):  # the caller refuses NaN and infinity
                    yield block.astype(np.float32).mean(axis=1), rate
    if any("duplicated MOOV" in line for line in messages):
        raise UserError(f"{path}: several files one after another, and only the first can be read; separate them")
    errors = [PREFIX.sub("", line) for line in messages if "[error]" in line or "[fatal]" in line]
    if samples == 0:
        raise UserError(f"{path}: not readable as audio ({reason}; ffmpeg: {_choose_reason(errors)})")
    declared = _find_duration(messages)
    cut = [error for error in errors if CUT.search(error)]
    if cut or samples / rate < declared - SHORT_S:
        found = cut[-1] if cut else f"{samples / rate:.2f} of {declared:.2f} s are there"
        raise UserError(f"{path}: damaged or truncated ({found})")
    if errors:
        log.warning("%s", to_one_line(f"{path}: damaged in places; ffmpeg: {errors[0]}"))


def measure_s(path: Path) -> float | None:
    """Seconds of a file, by its packets; None if it cannot be read."""
    try:
        with _run(path, "", "-c", "copy", "-f", "null", "-progress", "pipe:1", "-") as (output, _):
            times = re.findall(rb"out_time_us=(\d+)", output.read())
    except UserError:
        return None
    return int(times[-1]) / 1e6 if times else None


@contextmanager
def _run(path: Path, reason: str, *output: str) -> Iterator[tuple[IO[bytes], list[str]]]:
    """What ffmpeg writes of the first audio stream, and its messages, which are complete when the block has ended."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise UserError(f"{path}: not readable as audio ({reason}); it may be with ffmpeg, which is not installed")
    command = [program, "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info"]
    command += ["-protocol_whitelist", "file", "-format_whitelist", DEMUXERS, "-i", f"file:{os.path.abspath(path)}"]
    messages: list[str] = []

    def keep(stream: IO[bytes]) -> None:
        for line in stream:
            if len(messages) < LINES:
                messages.append(line.decode(errors="replace").rstrip())

    pipe, environment = subprocess.PIPE, os.environ | {"AV_LOG_FORCE_NOCOLOR": "1"}
    with subprocess.Popen([*command, "-map", "0:a:0", *output], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe,
                          env=environment) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        thread = threading.Thread(target=keep, args=(process.stderr,), daemon=True)
        thread.start()
        try:
            yield process.stdout, messages
        except BaseException:  # the caller stopped early
            process.kill()
            raise
        finally:
            thread.join()


def _choose_reason(errors: list[str]) -> str:
    if any("whitelist" in error for error in errors):
        return "a playlist or another kind that is not read"
    if any("matches no streams" in error for error in errors):
        return "no audio in it"
    return errors[0] if errors else "no samples in it"


def _find_duration(messages: list[str]) -> float:
    """Seconds that the header declares; 0 if it does not, or if they may be those of a video."""
    text = "\n".join(messages)
    found = re.search(r"Duration: (\d+):(\d+):([\d.]+)", text)
    if found is None or "Estimating duration" in text or ": Video:" in text:
        return 0.0
    return 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3])
