"""Files whose headers give no length or a wrong one, and files of several recordings one after another.

libsndfile stops where the first header says. Here such a file is cut into parts that it reads to the end.
"""

import itertools
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ddcm.errors import UserError

Bytes = bytes | mmap.mmap
# How a recording begins, by libsndfile's name of the format.
SEVERAL = {
    "FLAC": rb"fLaC\0\0\0\x22", "OGG": rb"OggS\0[\x02\x06]", "CAF": rb"caff\0\x01\0\0", "RF64": rb"RF64.{4}WAVE",
    "W64": rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0", "VOC": rb"Creative Voice File\x1a",
    "NIST": rb"NIST_1A\n   1024\n", "PVF": rb"PVF1\n\d+ \d+ \d+\n",
    "PAF": rb"(?: paf|fap )\0{7}", "IRCAM": rb"\x64\xa3[\1-\4]\0.{4}[\1-\x40]\0{3}|[\0-\4]\xa3\x64.{4}\0{3}[\1-\x40]",
    "MAT4": rb".{20}samplerate\0", "MAT5": rb"MATLAB 5\.0 MAT-file", "SDS": rb"\xf0\x7e.\x01[^\xf7]{16}\xf7",
    "AVR": rb"2BIT.{8}(?:\0\0|\xff\xff)", "XI": rb"Extended Instrument: ", "WVE": rb"ALawSoundFile\*\*\0",
}  # fmt: skip
# Of what ffmpeg reads, these end for it with the first recording.
FIRST_ALONE = re.compile(
    rb"TTA1[\1-\3]\0.\0[\x08\x10\x18\x20]\0|wvpk.{4}[\0-\x10]\x04.{6}\0{4}.{5}[\x08-\x0f\x18-\x1f\x28-\x2f]"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c|FLV\x01[\0-\5]\0{3}\x09\0{4}"
    rb"|nut/multimedia container\0|\.RMF\0{3}\x12|DSD \x1c\0{7}|MAC [\x60-\xff]\x0f|tBaK\x01\0|#!AMR(?:-WB)?\n"
    rb"|MPCKSH|ajkg[\1-\3]|Creative Voice File\x1a|caff\0\x01\0\0|FORM.{4}(?:8SVX|16SV)", re.S
)  # fmt: skip
OTHER = re.compile(rb"[\w ]{4}|ID3|TAG")  # what may follow the samples of a wav
ENDLESS = b"\xff" * 4  # a length that a stream has; libsndfile reads it to the end of the file
KBPS = ((8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
        (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320))  # fmt: skip
REST = 1024  # bytes behind the declared end of a wav: fewer, or zeros, are padding
REACH = 1 << 16  # bytes of anything else before an MPEG frame
MOST = 1000  # parts of a file
MANY = 1 << 26  # MPEG frames, three weeks


@dataclass(frozen=True)
class Part:
    """Bytes ``start`` to ``end`` of a file, after a ``header`` that replaces the one that is there."""

    start: int
    end: int
    header: bytes = b""


class PartReader:
    """A part as a file that ``soundfile`` opens."""

    def __init__(self, file: IO[bytes], part: Part):
        self._file, self._part, self._at = file, part, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        part = self._part
        self._at = offset + (0, self._at, len(part.header) + part.end - part.start)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        part, data = self._part, self._part.header[self._at : self._at + size]
        if not data:
            at = part.start + self._at - len(part.header)
            self._file.seek(at)
            data = self._file.read(max(0, min(size, part.end - at)))
        self._at += len(data)
        return data


def split(path: Path, data: Bytes, kind: str, frames: int) -> list[Part]:
    """The parts of a file with bytes ``data``, not of an mp3; none if it is one recording whose header has its length.

    Args:
        kind: libsndfile's name of the format.
        frames: as many as libsndfile sees.

    Raises UserError: the last page or frame is cut off.
    """
    starts = [match.start() for match in re.finditer(SEVERAL[kind], data, re.S)] if kind in SEVERAL else []
    if kind == "CAF":
        for part in _cut_at(starts, data) or [Part(0, len(data))]:
            _refuse_cut_caf(path, data[part.start : part.end])
    if kind in ("WAV", "WAVEX", "RF64") and len(starts) < 2:
        return _split_wav(data, frames)
    if kind == "OGG":
        if _page_end(data, data.rfind(b"OggS")) > len(data):
            raise UserError(f"{path}: truncated: its last page is cut off")
        ends = {_page_end(data, start) for start in starts}
        starts = [start for start in starts if start not in ends]  # streams that begin together are one part
    return _cut_at(starts, data)


def refuse_several(path: Path, data: Bytes) -> None:
    """Raise UserError: several recordings of a kind of which ffmpeg reads the first alone."""
    if (first := FIRST_ALONE.match(data)) and any(
        match.start() and match[0][:4] == first[0][:4] for match in FIRST_ALONE.finditer(data)
    ):
        raise UserError(f"{path}: several files one after another, and only the first can be read; separate them")


def _cut_at(starts: list[int], data: Bytes) -> list[Part]:
    return [Part(*ends) for ends in zip(starts, [*starts[1:], len(data)], strict=True)] if len(starts) > 1 else []


def split_chunks(data: Bytes) -> list[Part]:
    """As ``split``, of several wav, aiff or au files one after another, which libsndfile may refuse; none of others."""
    starts, magic, form = [0], data[:4], data[8:12]
    is_known = magic == b".snd" or (magic, form) in ((b"RIFF", b"WAVE"), (b"FORM", b"AIFF"), (b"FORM", b"AIFC"))
    while is_known and len(starts) <= MOST:
        at = starts[-1]
        if magic == b".snd":
            end = at + int.from_bytes(data[at + 4 : at + 8], "big") + int.from_bytes(data[at + 8 : at + 12], "big")
        else:
            end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little" if magic == b"RIFF" else "big")
            end += end % 2 if data[end : end + 4] != magic else 0
        if data[end : end + 4] != magic or (magic != b".snd" and data[end + 8 : end + 12] != form):
            break
        starts.append(end)
    return _cut_at(starts, data)


def _page_end(data: Bytes, start: int) -> int:
    """End of an Ogg page (RFC 3533, section 6)."""
    segments = data[start + 26 : start + 27]
    if not segments:
        return len(data) + 1
    table = data[start + 27 : start + 27 + segments[0]]
    return start + 27 + segments[0] + sum(table)


def _refuse_cut_caf(path: Path, data: Bytes) -> None:
    """libsndfile refuses it, and ffmpeg reads what is there."""
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 12], "big", signed=True)
        if data[at : at + 4] == b"data" and at + 12 + size > len(data):
            raise UserError(f"{path}: truncated: {len(data) - at - 12} of {size} bytes are there")
        at += 12 + max(0, size)


def _split_wav(data: Bytes, frames: int) -> list[Part]:
    """A wav whose samples go on behind the end that the header gives: a recorder was killed, or wrote into a pipe."""
    at = 12
    while at + 8 < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size
        if data[at : at + 4] == b"data":
            start = at + 8 if frames == 0 else end
            rest = data[start : start + REST]
            if (frames and (len(rest) < REST or not any(rest))) or OTHER.match(rest) or OTHER.match(rest[1:]):
                return []
            header = b"RIFF" + ENDLESS + data[8:at].replace(b"ds64", b"JUNK") + b"data" + ENDLESS
            return [Part(at + 8, len(data), header)]
        at = end + size % 2
    return []


def split_mp3(path: Path, data: Bytes, reach: int = 0) -> list[Part]:
    """As ``split``, of MPEG layer III that begins within ``reach`` bytes; none of other files."""
    parts = list(itertools.islice(_list_mp3(path, data, reach), MOST + 1))
    return parts if len(parts) > 1 or (parts and parts[0].header) else []


def _list_mp3(path: Path, data: Bytes, reach: int) -> Iterator[Part]:
    """Parts that begin with a header of the right length, or get one that is made here."""
    at = _find_frame(data, 0, reach)
    while frame := _read_frame(data, at):
        start, count, declared_end = at, 0, at
        info = _read_info(data, at, frame)
        while frame and (count == 0 or _read_info(data, at, frame) is None):
            at, count = at + frame[0], count + 1
            if info is not None and count == info[0] + 1:  # its own frame is not counted
                declared_end = at
            frame = _read_frame(data, at)
        if info is None and at > len(data):
            raise UserError(f"{path}: truncated: its last frame is cut off")
        if info is not None and count <= info[0] + 3:  # what is missing, libsndfile reports
            yield Part(start, min(at, len(data)))
        elif info is not None and abs(start + info[1] - declared_end) < 3000:  # another stream follows without a header
            at = declared_end
            yield Part(start, at)
        else:
            if _find_frame(data, at, REACH) == len(data) and any(data[_skip_tags(data, at) :]):
                at, count = len(data), MANY  # libsndfile may find the next frame
            yield Part(start, min(at, len(data)), _make_info(data[start : start + 4], count))
        at = _find_frame(data, at, REACH)


def _find_frame(data: Bytes, at: int, reach: int) -> int:
    """Start of the next three frames of one kind, or of fewer at the end of the file, after tags and after at most
    ``reach`` bytes of anything else; the end of the file if there are none."""
    start = at = min(_skip_tags(data, at), len(data))
    while 0 <= at <= start + reach:
        place, kinds = at, set()
        for _ in range(3):
            frame = _read_frame(data, place)
            kinds.add(None if frame is None else (data[place + 1], data[place + 2] & 0x0C))
            place += frame[0] if frame else 0
            if place >= len(data):
                break
        if len(kinds) == 1 and None not in kinds:
            return at
        at = data.find(b"\xff", at + 1)
    return len(data)


def _skip_tags(data: Bytes, at: int) -> int:
    """End of the ID3 and APE tags at a place."""
    while True:
        head = data[at : at + 32]
        if head.startswith(b"ID3") and len(head) >= 10:
            at += 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        elif head.startswith(b"APETAGEX") and len(head) == 32:
            at += max(32, 32 * (head[23] >> 7) + int.from_bytes(head[12:16], "little"))
        elif head.startswith(b"TAG"):
            at += 128
        else:
            return at


def _read_frame(data: Bytes, at: int) -> tuple[int, int] | None:
    """(length in bytes, where its Xing header would be) of a frame of MPEG layer III (ISO 11172-3, 2.4.2.3)."""
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, index, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3  # version 3 is MPEG 1, 2 is 2, 0 is 2.5
    if version == 1 or rate == 3 or not 0 < index < 15:
        return None
    first, mono = version == 3, head[3] >> 6 == 3
    sample_rate = (44100, 48000, 32000)[rate] >> (0 if first else 2 - version // 2)
    length = (144 if first else 72) * KBPS[first][index - 1] * 1000 // sample_rate + (head[2] >> 1 & 1)
    return length, 4 + 2 * (1 - (head[1] & 1)) + ((17 if mono else 32) if first else (9 if mono else 17))


def _read_info(data: Bytes, at: int, frame: tuple[int, int]) -> tuple[int, int] | None:
    """Frames and bytes that the Xing or VBRI header of a frame declares, 0 if it does not; None: it has no header."""
    info = data[at + frame[1] : at + frame[1] + 16]
    if info[:4] in (b"Xing", b"Info") and len(info) == 16:
        numbers = [*struct.unpack(">II", info[8:])] if info[7] & 1 else [0, *struct.unpack_from(">I", info, 8)]
        return numbers[0], numbers[1] if info[7] & 2 else 0
    if data[at + 36 : at + 40] == b"VBRI":
        size, frames = struct.unpack(">II", data[at + 46 : at + 54].ljust(8, b"\0"))
        return frames, size
    return None


def _make_info(head: bytes, count: int) -> bytes:
    """A frame with a Xing header that declares ``count`` frames, for a stream whose frames begin with ``head``."""
    head = bytes([0xFF, head[1] | 1, 0xC0 | head[2] & 0x0C, head[3]])
    length, place = _read_frame(head, 0) or (0, 0)
    return (head.ljust(place, b"\0") + b"Xing" + struct.pack(">II", 1, count)).ljust(length, b"\0")
