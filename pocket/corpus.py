"""Both training pools: recordings inside Debian packages -> one file of 16 kHz samples and an index.

    python -m pocket.corpus --out runs/corpus

``pool.csv`` and ``wide_pool.csv`` list every clip with its caption and licence. Packages are downloaded by ``apt-get``
and unpacked, never installed; each file is decoded once. A package that is finished is not read again, so a run that
was stopped goes on. Whole files go to validation by a hash of their path and entry, so the split never moves.

Recordings are high-passed at 20 Hz and lose the silence at both ends, but for the validation clips of the first pool:
they stay what they have always been.
"""

import argparse
import csv
import dataclasses
import functools
import hashlib
import multiprocessing
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from pocket.containers import read_recording

HERE = Path(__file__).parent
SAMPLE_RATE = 16000
KINDS = ("speech", "music", "percussion", "effects")
POOLS = {"first": HERE / "pool.csv", "wide": HERE / "wide_pool.csv"}
SHORTEST = SAMPLE_RATE // 20  # samples; under 50 ms there is nothing to learn from
HIGH_PASS_HZ = 20.0
SILENCE_DB = 60.0  # below the clip's peak


@dataclass(frozen=True)
class Clip:
    kind: str
    caption: str
    split: str  # "train" or "val"
    offset: int  # first sample in audio.i16
    length: int  # samples
    path: str
    pool: str = "first"  # or "wide"


def pool(*names: str) -> list[dict[str, str]]:
    """The rows of the named pools, of both by default, each with its pool's name in the column ``pool``."""
    rows = []
    for name in names or POOLS:
        with open(POOLS[name], newline="", encoding="utf-8") as file:
            rows += [{**row, "pool": name} for row in csv.DictReader(file)]
    return rows


def split_of(row: dict[str, str], examples: set[tuple[str, str]]) -> str:
    """One file in sixteen, and every file that ``examples/`` was cut from, is for validation.

    A file is a path and, inside a container, an entry.
    """
    key = f"{row['package']}/{row['path']}#{row['entry']}"
    chosen = hashlib.sha256(key.encode()).digest()[0] < 16
    return "val" if chosen or (row["path"], row["entry"]) in examples else "train"


def fetch(packages: list[str], folder: Path) -> None:
    """Download and unpack Debian packages that ``folder`` does not have yet."""
    for name in tqdm(packages, desc="packages"):
        target = folder / name
        if target.exists():
            continue
        debs, unpacked = folder / "debs", folder / f"{name}.part"
        debs.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", name], cwd=debs, check=True, stdout=subprocess.DEVNULL)
        (deb,) = debs.glob(f"{name}_*.deb")
        subprocess.run(["dpkg", "-x", str(deb), str(unpacked)], check=True)
        unpacked.rename(target)
        deb.unlink()


@functools.cache
def _high_pass(rate: int) -> np.ndarray:
    from scipy.signal import butter

    return butter(2, HIGH_PASS_HZ, "highpass", fs=rate, output="sos")


def clean(audio: np.ndarray) -> np.ndarray:
    """16 kHz audio (S,) without what lies below 20 Hz and without the silence at both ends, of 20 ms steps."""
    from scipy.signal import sosfiltfilt

    if len(audio) < SHORTEST:
        return audio
    audio = sosfiltfilt(_high_pass(SAMPLE_RATE), audio, padlen=min(len(audio) - 1, SAMPLE_RATE // 10))
    step = SAMPLE_RATE // 50
    loudness = np.maximum.reduceat(np.abs(audio), np.arange(0, len(audio), step))
    sounding = np.flatnonzero(loudness > loudness.max() * 10 ** (-SILENCE_DB / 20))
    if len(sounding) == 0:
        return audio.astype(np.float32)
    return audio[sounding[0] * step : (sounding[-1] + 1) * step].astype(np.float32)


def load_rows(
    rows: list[dict[str, str]], folder: Path, unchanged: frozenset[int] = frozenset()
) -> Iterator[np.ndarray]:
    """The clips of rows that follow on each other file by file, 16 kHz float32 (S,); each file is decoded once.

    Clips at the positions ``unchanged`` are not cleaned.
    """
    import librosa

    positions = iter(range(len(rows)))
    for (package, path, entry), clips in groupby(rows, key=lambda row: (row["package"], row["path"], row["entry"])):
        recording, rate = read_recording(folder / package / path, entry)
        for row in clips:
            start = round(float(row["start"]) * rate)
            audio = recording[start : start + round(float(row["duration"]) * rate)]
            audio = librosa.resample(audio, orig_sr=rate, target_sr=SAMPLE_RATE, res_type="soxr_hq")
            if next(positions) not in unchanged:
                audio = clean(audio)
            peak = np.abs(audio).max(initial=0.0)
            yield audio / max(1.0, peak / 0.99)  # some Vorbis files decode above 1: scale, do not clip


def example_files() -> set[tuple[str, str]]:
    """(path, entry) of the recordings that ``examples/`` was cut from."""
    with open(HERE.parent / "examples" / "examples.csv", newline="", encoding="utf-8") as file:
        return {(row["path"], row["entry"]) for row in csv.DictReader(file)}


def _build_part(task: tuple[list[tuple[int, dict[str, str]]], Path, Path]) -> None:
    """Decode the numbered rows of one package into ``part``.i16 and, last, ``part``.csv with the rows' numbers."""
    numbered, packages, part = task
    examples = example_files()
    ordered = sorted(numbered, key=lambda item: (item[1]["path"], item[1]["entry"], item[0]))
    rows = [row for _, row in ordered]
    splits = [split_of(row, examples) for row in rows]
    unchanged = frozenset(i for i, row in enumerate(rows) if row["pool"] == "first" and splits[i] == "val")
    offset, index = 0, []
    with open(f"{part}.i16", "wb") as samples:
        for (number, row), split, audio in zip(ordered, splits, load_rows(rows, packages, unchanged), strict=True):
            if len(audio) < SHORTEST:
                continue
            samples.write(np.round(audio * 32767).astype("<i2").tobytes())
            clip = Clip(row["kind"], row["caption"], split, offset, len(audio), row["path"] + row["entry"], row["pool"])
            index.append([number, *dataclasses.astuple(clip)])
            offset += len(audio)
    temporary = Path(f"{part}.csv.tmp")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(index)
    temporary.rename(f"{part}.csv")


def build(out: Path, packages: Path, pools: tuple[str, ...] = tuple(POOLS), processes: int = 2) -> None:
    """Write ``audio.i16`` and ``index.csv`` below ``out``, clips in the order of the pools."""
    rows = pool(*pools)
    names = sorted({row["package"] for row in rows})
    fetch(names, packages)
    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    by_package: dict[str, list[tuple[int, dict[str, str]]]] = {name: [] for name in names}
    for number, row in enumerate(rows):
        by_package[row["package"]].append((number, row))
    waiting = [
        (numbered, packages, parts / name)
        for name, numbered in by_package.items()
        if not (parts / f"{name}.csv").exists()
    ]
    waiting.sort(key=lambda task: -sum(float(row["duration"]) for _, row in task[0]))
    with multiprocessing.get_context("spawn").Pool(processes) as workers:
        for _ in tqdm(workers.imap_unordered(_build_part, waiting), total=len(waiting), desc="decoding"):
            pass
    index, before = [], 0
    with open(out / "audio.i16.tmp", "wb") as samples:
        for name in names:
            with open(parts / f"{name}.csv", newline="", encoding="utf-8") as file:
                for number, kind, caption, split, offset, *rest in csv.reader(file):
                    index.append((int(number), [kind, caption, split, int(offset) + before, *rest]))
            data = (parts / f"{name}.i16").read_bytes()
            samples.write(data)
            before += len(data) // 2
    with open(out / "index.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Clip.__dataclass_fields__)
        writer.writerows(row for _, row in sorted(index, key=lambda item: item[0]))
    (out / "audio.i16.tmp").rename(out / "audio.i16")
    for file in parts.iterdir():
        file.unlink()
    parts.rmdir()
    print(f"{before / SAMPLE_RATE / 3600:.2f} h in {out}")


class Corpus:
    """The built corpus, memory-mapped: ``clips[i]`` is the index, ``audio(clip, start, length)`` float32."""

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        with open(folder / "index.csv", newline="", encoding="utf-8") as file:
            self.clips = [
                Clip(r["kind"], r["caption"], r["split"], int(r["offset"]), int(r["length"]), r["path"],
                     r.get("pool") or "first")
                for r in csv.DictReader(file)
            ]  # fmt: skip
        self.samples = np.memmap(folder / "audio.i16", dtype="<i2", mode="r")

    def audio(self, clip: Clip, start: int = 0, length: int | None = None) -> np.ndarray:
        stop = clip.length if length is None else min(clip.length, start + length)
        return self.samples[clip.offset + start : clip.offset + stop].astype(np.float32) / 32768

    def of(self, split: str, kind: str | None = None, pool: str | None = None) -> list[Clip]:
        """The clips of a split, in the order of the pools; of one kind and one pool where they are named."""
        return [c for c in self.clips if c.split == split and kind in (None, c.kind) and pool in (None, c.pool)]


def export(corpus: Corpus, folder: Path, each: int | None = None, longest_s: float | None = None) -> None:
    """Clips as FLAC and ``manifest.csv`` (path, split): what ``ddcm fit --data.root`` takes. Of each split and kind at
    most ``each``, spread over the pools; of a longer clip the middle ``longest_s``."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = [corpus.of(split, kind) for split in ("train", "val") for kind in KINDS]
    chosen = [clip for own in groups for clip in own[:: max(1, len(own) // each) if each else 1][:each]]
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "kind", "caption"])
        for number, clip in enumerate(tqdm(chosen, desc="flac")):
            name = f"{number:05d}-{clip.kind}.flac"
            length = min(clip.length, round(longest_s * SAMPLE_RATE)) if longest_s else clip.length
            soundfile.write(folder / name, corpus.audio(clip, (clip.length - length) // 2, length), SAMPLE_RATE)
            writer.writerow([name, clip.split, clip.kind, clip.caption])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--packages", type=Path, default=Path("runs/packages"), help="where packages are unpacked")
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=list(POOLS))
    parser.add_argument("--processes", type=int, default=2, help="that decode side by side")
    parser.add_argument("--flac", type=Path, help="also write clips as FLAC, with a manifest.csv, to fit codebooks on")
    parser.add_argument("--each", type=int, help="of each split and kind at most so many; default all")
    parser.add_argument("--longest", type=float, help="seconds of a clip at most; default all")
    args = parser.parse_args()
    if not (args.out / "audio.i16").exists():
        build(args.out, args.packages, tuple(args.pools), args.processes)
    if args.flac:
        export(Corpus(args.out), args.flac, args.each, args.longest)
