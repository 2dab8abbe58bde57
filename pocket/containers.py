"""Recordings inside Debian packages: every file form of the two pools -> mono samples and their rate."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import soundfile

G722_RATE = 16000


def read_recording(path: Path, entry: str = "") -> tuple[np.ndarray, int]:
    """A recording as (float32 samples (S,), the mean of its channels; sample rate in Hz).

    ``entry`` names the part of a container: the number of a sound in OpenTTD's ``.cat``, of a sample in a ``.sf2``
    soundfont or a ``.pat`` patch, the name of a member of a ``.pk3`` archive. Samples may lie outside -1 to 1, as
    those of some Vorbis files do.
    """
    form = path.suffix.lower()
    if form == ".g722":  # libsndfile has no G.722
        from G722 import G722

        return np.asarray(G722(G722_RATE, 64000).decode(path.read_bytes()), np.float32) / 32768, G722_RATE
    if form == ".sf2":
        return read_soundfont(path.read_bytes(), int(entry))
    if form == ".pat":
        return read_gravis_patch(path.read_bytes(), int(entry))
    source: Path | io.BytesIO = path
    if form == ".pk3":
        with zipfile.ZipFile(path) as archive:
            source = io.BytesIO(archive.read(entry))
    elif form == ".cat":
        source = io.BytesIO(opensfx_entry(path.read_bytes(), int(entry)))
    audio, rate = soundfile.read(source, dtype="float32", always_2d=True)
    return audio.mean(axis=1), rate


def opensfx_entry(data: bytes, entry: int) -> bytes:
    """The RIFF bytes of a sound in OpenTTD's ``.cat``: an index of (offset, size), then name, RIFF, file name."""
    offset, size = struct.unpack_from("<II", data, 8 * entry)
    offset &= 0x7FFFFFFF
    start = offset + 1 + data[offset]  # after the length byte and the name
    return data[start : start + size]


def read_soundfont(data: bytes, entry: int) -> tuple[np.ndarray, int]:
    """Sample ``entry`` of a SoundFont 2 file: 16-bit PCM in the chunk ``smpl``, its bounds in the chunk ``shdr``."""
    samples = data.index(b"sdtasmpl") + 12
    header = data.rindex(b"shdr") + 8 + 46 * entry
    start, end, _, _, rate = struct.unpack_from("<5I", data, header + 20)
    return np.frombuffer(data, "<i2", end - start, samples + 2 * start).astype(np.float32) / 32768, rate


def read_gravis_patch(data: bytes, entry: int) -> tuple[np.ndarray, int]:
    """Sample ``entry`` of a Gravis Ultrasound patch. Bit 0 of its mode is 16-bit, bit 1 is unsigned."""
    header = 239
    for _ in range(entry + 1):
        size, rate = struct.unpack_from("<I8xH", data, header + 8)
        mode, start = data[header + 55], header + 96
        header = start + size
    wide, unsigned = mode & 1, mode & 2
    raw = np.frombuffer(data[start : start + size], ("u" if unsigned else "i") + ("2" if wide else "1"))
    return (raw / (32768 if wide else 128) - (1 if unsigned else 0)).astype(np.float32), rate
