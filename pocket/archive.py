"""The corpus in one file that is small enough to be carried to another machine, and back.

    python -m pocket.archive pack --corpus runs/corpus --file corpus.zip --megabytes 39
    python -m pocket.archive unpack --corpus runs/corpus --file corpus.zip

Validation clips are lossless, so that what is measured there is the same. Training clips are Opus of about 60 kbps,
whose log-mels are half a decibel from the recordings'; as many seconds of each kind as there are, or as fit. No clip
gives more than its first 90 s, which is more than any measurement takes from a validation clip.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from ddcm.errors import UserError
from ddcm.runtime.files import write_atomically
from pocket.corpus import KINDS, SAMPLE_RATE, Clip, Corpus

LONGEST = 90 * SAMPLE_RATE
OPUS = {"format": "OGG", "subtype": "OPUS", "compression_level": 0.8}
FLAC = {"format": "FLAC", "subtype": "PCM_16"}
OVERHEAD = 400  # bytes of an entry of the archive and of a row of its index, at most


def encoded(audio: np.ndarray, lossless: bool) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio, SAMPLE_RATE, **(FLAC if lossless else OPUS))
    return file.getvalue()


def chosen(corpus: Corpus, limit: int) -> Iterator[tuple[Clip, bytes]]:
    """Clips and their bytes, ``limit`` in all: validation first, then the kind that has the fewest so far, in an order
    that mixes voices and kits.

    Raises:
        UserError: the validation clips alone are more.
    """
    left = limit
    for clip in corpus.of("val"):
        data = encoded(corpus.audio(clip, 0, LONGEST), lossless=True)
        left -= len(data) + OVERHEAD
        yield clip, data
    if left < 0:
        raise UserError(f"the validation clips alone are {(limit - left) / 1e6:.1f} MB: give more --megabytes")
    waiting = {
        kind: sorted(corpus.of("train", kind), key=lambda clip: hashlib.sha256(clip.path.encode()).digest())
        for kind in KINDS
    }
    taken = dict.fromkeys(KINDS, 0)
    while waiting := {kind: clips for kind, clips in waiting.items() if clips}:
        kind = min(waiting, key=taken.__getitem__)
        clip = waiting[kind].pop()
        data = encoded(corpus.audio(clip, 0, LONGEST), lossless=False)
        size = len(data) + OVERHEAD
        if size > left:
            waiting[kind] = []  # full, for this kind
            continue
        taken[kind] += size
        left -= size
        yield clip, data


def pack(corpus: Corpus, file: Path, megabytes: float) -> float:
    """Write ``file``, whole or not at all; returns the seconds of sound in it."""
    index, samples = io.StringIO(), 0
    rows = csv.writer(index)
    rows.writerow(Clip.__dataclass_fields__)
    with write_atomically(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for number, (clip, data) in enumerate(tqdm(chosen(corpus, round(1e6 * megabytes)), desc="clips")):
            archive.writestr(str(number), data)
            length = min(clip.length, LONGEST)
            rows.writerow(dataclasses.astuple(dataclasses.replace(clip, offset=samples, length=length)))
            samples += length
        archive.writestr("index.csv", index.getvalue(), zipfile.ZIP_DEFLATED)
    return samples / SAMPLE_RATE


def unpack(file: Path, folder: Path) -> Corpus:
    """What ``pack`` wrote -> a corpus folder.

    Raises:
        UserError: the file is none of ``pack``, or ``folder`` has a corpus already.
    """
    if (folder / "audio.i16").exists():
        raise UserError(f"{folder} has a corpus already: remove it, or give another --corpus")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(file) as archive, write_atomically(folder / "audio.i16") as samples:
            index = archive.read("index.csv").decode()
            with open(samples, "wb") as out:
                for number, row in enumerate(tqdm(list(csv.DictReader(io.StringIO(index))), desc="clips")):
                    audio, _ = soundfile.read(io.BytesIO(archive.read(str(number))), dtype="int16")
                    if len(audio) != int(row["length"]):
                        raise UserError(f"{file}: clip {number} has {len(audio)} samples instead of {row['length']}")
                    out.write(audio.astype("<i2").tobytes())
            (folder / "index.csv").write_text(index, encoding="utf-8")
    except (OSError, KeyError, zipfile.BadZipFile, soundfile.LibsndfileError) as error:
        raise UserError(f"{file} cannot be unpacked: {error}") from error
    return Corpus(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pack", "unpack"))
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--file", type=Path, default=Path("runs/corpus.zip"))
    parser.add_argument("--megabytes", type=float, default=39.0)
    args = parser.parse_args()
    try:
        if args.what == "pack":
            seconds = pack(Corpus(args.corpus), args.file, args.megabytes)
            print(f"{seconds / 3600:.2f} h, {args.file.stat().st_size / 1e6:.1f} MB in {args.file}")
        else:
            print(f"{len(unpack(args.file, args.corpus).clips)} clips in {args.corpus}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
