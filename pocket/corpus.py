"""The training pool: recordings inside Debian packages -> one file of 16 kHz samples and an index.

    python -m pocket.corpus --out runs/corpus

``pool.csv`` lists every clip with its caption and licence. Packages are downloaded by ``apt-get`` and unpacked,
never installed. Whole files go to validation by a hash of their path, so the split never moves.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

HERE = Path(__file__).parent
SAMPLE_RATE = 16000
KINDS = ("speech", "music", "percussion", "effects")


@dataclass(frozen=True)
class Clip:
    kind: str
    caption: str
    split: str  # "train" or "val"
    offset: int  # first sample in audio.i16
    length: int  # samples
    path: str


def pool() -> list[dict[str, str]]:
    with open(HERE / "pool.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def split_of(row: dict[str, str], examples: set[tuple[str, str]]) -> str:
    """One file in sixteen, and every file that ``examples/`` was cut from, is for validation."""
    key = f"{row['package']}/{row['path']}#{row['entry']}"
    chosen = hashlib.sha256(key.encode()).digest()[0] < 16
    return "val" if chosen or (row["path"], row["entry"]) in examples else "train"


def fetch(packages: list[str], folder: Path) -> None:
    """Download and unpack Debian packages; what is there already is kept."""
    for name in tqdm(packages, desc="packages"):
        target = folder / name
        if target.exists():
            continue
        debs = folder / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", name], cwd=debs, check=True, stdout=subprocess.DEVNULL)
        (deb,) = debs.glob(f"{name}_*.deb")
        subprocess.run(["dpkg", "-x", str(deb), str(target)], check=True)
        deb.unlink()


def _opensfx_entry(path: Path, entry: int) -> io.BytesIO:
    """A sound of OpenTTD's ``.cat`` container: an index of (offset, size), then name, RIFF, file name."""
    data = path.read_bytes()
    offset, size = struct.unpack_from("<II", data, 8 * entry)
    offset &= 0x7FFFFFFF
    start = offset + 1 + data[offset]  # after the length byte and the name
    return io.BytesIO(data[start : start + size])


def read(path: Path, entry: str) -> tuple[np.ndarray, int]:
    """A recording as (float32 samples of its channels' mean, sample rate)."""
    if path.suffix == ".g722":  # libsndfile has no G.722
        from G722 import G722

        return np.asarray(G722(SAMPLE_RATE, 64000).decode(path.read_bytes()), np.float32) / 32768, SAMPLE_RATE
    source = _opensfx_entry(path, int(entry)) if entry else path
    audio, rate = soundfile.read(source, dtype="float32", always_2d=True)
    return audio.mean(axis=1), rate


def load_rows(rows: list[dict[str, str]], folder: Path) -> Iterator[np.ndarray]:
    import librosa

    for row in rows:
        audio, rate = read(folder / row["package"] / row["path"], row["entry"])
        start = round(float(row["start"]) * rate)
        audio = audio[start : start + round(float(row["duration"]) * rate)]
        audio = librosa.resample(audio, orig_sr=rate, target_sr=SAMPLE_RATE, res_type="soxr_hq")
        peak = np.abs(audio).max(initial=0.0)
        yield audio / max(1.0, peak / 0.99)  # some Vorbis files decode above 1: scale, do not clip


def build(out: Path, packages: Path) -> None:
    with open(HERE.parent / "examples" / "examples.csv", newline="", encoding="utf-8") as file:
        examples = {(row["path"], row["entry"]) for row in csv.DictReader(file)}
    rows = pool()
    fetch(sorted({row["package"] for row in rows}), packages)
    out.mkdir(parents=True, exist_ok=True)
    offset = 0
    with (
        open(out / "audio.i16.tmp", "wb") as samples,
        open(out / "index.csv", "w", newline="", encoding="utf-8") as index,
    ):
        writer = csv.writer(index)
        writer.writerow(Clip.__dataclass_fields__)
        for row, audio in zip(tqdm(rows, desc="clips"), load_rows(rows, packages), strict=True):
            if len(audio) < SAMPLE_RATE // 20:
                continue  # under 50 ms there is nothing to learn from
            samples.write(np.round(audio * 32767).astype("<i2").tobytes())
            split = split_of(row, examples)
            writer.writerow([row["kind"], row["caption"], split, offset, len(audio), row["path"] + row["entry"]])
            offset += len(audio)
    (out / "audio.i16.tmp").rename(out / "audio.i16")
    print(f"{offset / SAMPLE_RATE / 3600:.2f} h in {out}")


class Corpus:
    """The built corpus, memory-mapped: ``clips[i]`` is the index, ``audio(clip, start, length)`` float32."""

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        with open(folder / "index.csv", newline="", encoding="utf-8") as file:
            self.clips = [
                Clip(r["kind"], r["caption"], r["split"], int(r["offset"]), int(r["length"]), r["path"])
                for r in csv.DictReader(file)
            ]
        self.samples = np.memmap(folder / "audio.i16", dtype="<i2", mode="r")

    def audio(self, clip: Clip, start: int = 0, length: int | None = None) -> np.ndarray:
        stop = clip.length if length is None else min(clip.length, start + length)
        return self.samples[clip.offset + start : clip.offset + stop].astype(np.float32) / 32768

    def of(self, split: str, kind: str | None = None) -> list[Clip]:
        return [c for c in self.clips if c.split == split and kind in (None, c.kind)]


def export(corpus: Corpus, folder: Path) -> None:
    """Every clip as FLAC and ``manifest.csv`` (path, split): what ``train.py fit --data.root`` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "kind", "caption"])
        for number, clip in enumerate(tqdm(corpus.clips, desc="flac")):
            name = f"{number:04d}-{clip.kind}.flac"
            soundfile.write(folder / name, corpus.audio(clip), SAMPLE_RATE)
            writer.writerow([name, clip.split, clip.kind, clip.caption])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--packages", type=Path, default=Path("runs/packages"), help="where packages are unpacked")
    parser.add_argument("--flac", type=Path, help="also write every clip as FLAC, with a manifest.csv")
    args = parser.parse_args()
    if not (args.out / "audio.i16").exists():
        build(args.out, args.packages)
    if args.flac:
        export(Corpus(args.out), args.flac)
