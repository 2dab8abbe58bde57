"""The recordings of examples/ in the form of the training pool, for tests of the pocket recipe."""

import csv
from pathlib import Path

import soundfile

from pocket.corpus import Clip, Corpus
from tests.conftest import EXAMPLES

SOURCES = {"speech": ["speech"], "music": ["melodic"], "percussion": ["drumloop", "drumroll"], "effects": ["bird"]}


def examples_as_corpus(folder: Path) -> Corpus:
    """Every clip once for training and once, half as long, for validation."""
    offset = 0
    with open(folder / "audio.i16", "wb") as samples, open(folder / "index.csv", "w", newline="") as index:
        writer = csv.writer(index)
        writer.writerow(Clip.__dataclass_fields__)
        for kind, names in SOURCES.items():
            for name in names:
                audio = soundfile.read(EXAMPLES / f"{name}.flac", dtype="int16")[0]
                samples.write(audio.astype("<i2").tobytes())
                for split, length in (("train", len(audio)), ("val", len(audio) // 2)):
                    writer.writerow([kind, f"{kind}: {name}", split, offset, length, name])
                offset += len(audio)
    return Corpus(folder)
