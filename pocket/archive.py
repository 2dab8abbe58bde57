"""The corpus in files that are small enough to be carried to another machine, and back.

    python -m pocket.archive pack --corpus runs/corpus --file corpus.zip --megabytes 39
    python -m pocket.archive unpack --corpus runs/corpus --file corpus.zip

``--megabytes`` may name several sizes: the corpus then goes into as many files, ``corpus-0.zip`` and so on, and
``unpack`` takes all of them. Clips are joined into streams of two minutes and coded as Opus: at ``--quality 0.2``
about 57 kbps, whose log-mels are 0.3 dB from the recordings', at 0.1 about 32 kbps and 0.9 dB. Validation clips come
first and, with ``--lossless_validation``, as FLAC, so that what is measured on them is the same. Training clips follow,
as many seconds of each kind as there are, or as fit, in an order that mixes voices, kits and packages. No clip gives
more than its first ``--longest`` seconds. Training clips whose captions begin with ``--lossless_captions`` come
before the others and as FLAC: Opus puts noise between the partials of a note, and a vocoder would learn to.
"""

import argparse
import csv
import dataclasses
import functools
import hashlib
import io
import multiprocessing
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from ddcm.errors import UserError
from ddcm.runtime.files import write_atomically
from pocket.corpus import KINDS, POOLS, SAMPLE_RATE, Clip, Corpus

STREAM = 120 * SAMPLE_RATE  # samples after which a stream is full
ROW = 60  # bytes of a clip's row in the compressed index, at most
FLAC = {"format": "FLAC", "subtype": "PCM_16"}


def _encode(audio: np.ndarray, settings: dict) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio, SAMPLE_RATE, **settings)
    return file.getvalue()


@functools.lru_cache(maxsize=1)
def _open_corpus(folder: Path) -> Corpus:
    return Corpus(folder)


def _encode_stream(task: tuple[Path, list[Clip], int, dict]) -> tuple[list[Clip], bytes]:
    folder, clips, longest, settings = task
    corpus = _open_corpus(folder)
    return clips, _encode(np.concatenate([corpus.audio(clip, 0, longest) for clip in clips]), settings)


def validation_clips(corpus: Corpus, per_kind: int | None) -> list[Clip]:
    """All validation clips, or of each pool and kind ``per_kind`` that are spread over it."""
    groups = [corpus.of("val", kind, name) for name in POOLS for kind in KINDS]
    return [clip for clips in groups for clip in clips[:: max(1, len(clips) // per_kind) if per_kind else 1]]


def order_clips(clips: Iterable[Clip], longest: int, taken: Mapping[str, int] | None = None) -> Iterator[Clip]:
    """Clips in an order in which the next one is always of the kind that has the fewest samples so far.

    ``taken``: samples that each kind has before.
    """
    waiting: dict[str, list[Clip]] = {kind: [] for kind in KINDS}
    for clip in sorted(clips, key=lambda clip: hashlib.sha256(f"{clip.path}{clip.offset}".encode()).digest()):
        waiting[clip.kind].append(clip)
    taken = Counter(taken)
    while waiting := {kind: clips for kind, clips in waiting.items() if clips}:
        kind = min(waiting, key=taken.__getitem__)
        clip = waiting[kind].pop()
        taken[kind] += min(clip.length, longest)
        yield clip


def _group(clips: Iterable[Clip], longest: int, stream: int = STREAM) -> Iterator[list[Clip]]:
    group, samples = [], 0
    for clip in clips:
        group.append(clip)
        samples += min(clip.length, longest)
        if samples >= stream:
            yield group
            group, samples = [], 0
    if group:
        yield group


def pack(
    corpus: Corpus,
    folder: Path,
    files: list[Path],
    megabytes: list[float],
    longest_s: float = 90.0,
    quality: float = 0.2,
    lossless_validation: bool = True,
    validation_per_kind: int | None = None,
    processes: int = 1,
    lossless_captions: str | None = None,
) -> float:
    """Write the corpus in ``folder`` into ``files``, each whole or not at all and of at most its ``megabytes``.

    Training clips whose captions begin with ``lossless_captions`` come first and as FLAC, all others as Opus.

    Returns:
        The seconds of sound in them.

    Raises:
        UserError: the validation clips do not fit into the first file.
    """
    longest = round(longest_s * SAMPLE_RATE)
    opus = {"format": "OGG", "subtype": "OPUS", "compression_level": 1 - quality}
    stream = min(STREAM, round(megabytes[0] * SAMPLE_RATE))
    training: dict[bool, list[Clip]] = {True: [], False: []}  # by whether they are coded without loss
    taken: Counter[str] = Counter()
    for clip in corpus.of("train"):
        lossless = lossless_captions is not None and clip.caption.startswith(lossless_captions)
        training[lossless].append(clip)
        taken[clip.kind] += min(clip.length, longest) * lossless
    groups = (
        (_group(validation_clips(corpus, validation_per_kind), longest), FLAC if lossless_validation else opus),
        (_group(order_clips(training[True], longest), longest, stream), FLAC),
        (_group(order_clips(training[False], longest, taken), longest, stream), opus),
    )
    tasks = [(folder, clips, longest, settings) for group, settings in groups for clips in group]
    total = 0
    sizes = iter(zip(files, megabytes, strict=True))
    file, size = next(sizes)
    streams: list[tuple[list[Clip], bytes]] = []
    left = size * 1e6
    with multiprocessing.get_context("spawn").Pool(processes) as workers:
        results = workers.imap(_encode_stream, tasks) if processes > 1 else map(_encode_stream, tasks)
        for clips, data in tqdm(results, desc="streams", total=len(tasks)):
            cost = len(data) + 200 + ROW * len(clips)
            if cost > left:
                if clips[0].split == "val":
                    raise UserError(f"the validation clips alone are more than {size:g} MB: give more --megabytes")
                total += _write(file, streams, longest)
                following = next(sizes, None)
                if following is None:
                    workers.terminate()
                    return total / SAMPLE_RATE
                (file, size), streams = following, []
                left = size * 1e6
            streams.append((clips, data))
            left -= cost
    return (total + _write(file, streams, longest)) / SAMPLE_RATE


def _write(file: Path, streams: list[tuple[list[Clip], bytes]], longest: int) -> int:
    index, samples = io.StringIO(), 0
    rows = csv.writer(index)
    rows.writerow(["stream", *Clip.__dataclass_fields__])
    with write_atomically(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for number, (clips, data) in enumerate(streams):
            archive.writestr(str(number), data)
            for clip in clips:
                length = min(clip.length, longest)
                row = dataclasses.replace(clip, offset=samples, length=length)
                rows.writerow([number, *dataclasses.astuple(row)])
                samples += length
        archive.writestr("index.csv", index.getvalue(), zipfile.ZIP_DEFLATED)
    return samples


def unpack(files: list[Path], folder: Path) -> Corpus:
    """What ``pack`` wrote -> a corpus folder.

    Raises:
        UserError: a file is none of ``pack``, or ``folder`` has a corpus already.
    """
    if (folder / "audio.i16").exists():
        raise UserError(f"{folder} has a corpus already: remove it, or give another --corpus")
    folder.mkdir(parents=True, exist_ok=True)
    clips: list[Clip] = []
    with write_atomically(folder / "audio.i16") as samples, open(samples, "wb") as out:
        before = 0
        for file in tqdm(files, desc="files"):
            for members, stream in _read(file):
                clips += [dataclasses.replace(clip, offset=clip.offset + before) for clip in members]
                out.write(stream.astype("<i2").tobytes())
            before = out.tell() // 2
    with open(folder / "index.csv", "w", newline="", encoding="utf-8") as file_:
        rows = csv.writer(file_)
        rows.writerow(Clip.__dataclass_fields__)
        rows.writerows(dataclasses.astuple(clip) for clip in clips)
    return Corpus(folder)


def _read(file: Path) -> Iterator[tuple[list[Clip], np.ndarray]]:
    """The streams of a file: their clips, and their samples (int16)."""
    try:
        with zipfile.ZipFile(file) as archive:
            rows = csv.DictReader(io.StringIO(archive.read("index.csv").decode()))
            streams = {name: list(group) for name, group in groupby(rows, key=lambda row: row["stream"])}
            coded = [archive.read(name) for name in streams]
        with ThreadPool() as threads:
            decoded = threads.imap(lambda data: soundfile.read(io.BytesIO(data), dtype="int16")[0], coded)
            for (name, group), audio in zip(streams.items(), decoded, strict=True):
                values = [{field: row[field] for field in Clip.__dataclass_fields__} for row in group]
                clips = [Clip(**{**v, "offset": int(v["offset"]), "length": int(v["length"])}) for v in values]
                wanted = sum(clip.length for clip in clips)
                if len(audio) != wanted:
                    raise UserError(f"{file}: stream {name} has {len(audio)} samples instead of {wanted}")
                yield clips, audio
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile, soundfile.LibsndfileError) as error:
        raise UserError(f"{file} cannot be unpacked: {error}") from error


def number_files(file: Path, count: int) -> list[Path]:
    return [file] if count == 1 else [file.with_stem(f"{file.stem}-{number}") for number in range(count)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pack", "unpack"))
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--file", type=Path, default=Path("runs/corpus.zip"))
    parser.add_argument("--megabytes", type=float, nargs="+", default=[39.0])
    parser.add_argument("--longest", type=float, default=90.0, help="seconds of a clip, at most")
    parser.add_argument("--quality", type=float, default=0.2, help="0 to 1, of Opus")
    parser.add_argument("--lossless_validation", type=lambda text: text != "false", default=True)
    parser.add_argument("--validation_per_kind", type=int, help="clips of each pool (default: all)")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--lossless_captions", metavar="BEGINNING", help="such as 'a single note' (default: none)")
    args = parser.parse_args()
    try:
        if args.what == "pack":
            files = number_files(args.file, len(args.megabytes))
            seconds = pack(
                Corpus(args.corpus), args.corpus, files, args.megabytes, args.longest, args.quality,
                args.lossless_validation, args.validation_per_kind, args.processes, args.lossless_captions,
            )  # fmt: skip
            size = sum(file.stat().st_size for file in files if file.exists())
            print(f"{seconds / 3600:.2f} h, {size / 1e6:.1f} MB")
        else:
            files = sorted(args.file.parent.glob(f"{args.file.stem}-*{args.file.suffix}")) or [args.file]
            print(f"{len(unpack(files, args.corpus).clips)} clips in {args.corpus}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
