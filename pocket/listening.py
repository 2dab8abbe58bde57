"""Twenty validation clips to listen to and to measure: as recorded, plain, refined, and through a file of 2 kbps.

    python -m pocket.listening --out runs/listening --card checkpoints/pocket/README.md

Writes the sounds and ``index.html`` with players into ``--out``, and a table of ``log_mel_mae_db`` to the terminal and,
with ``--card``, into the model card. Clips are those whose captions match, in the order of the pools, never trained on.
"""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

import soundfile
import torch
from jinja2 import Template
from tqdm import tqdm

from benchmarks.marks import fill
from ddcm.evaluation.signal_metrics import log_mel_mae_db
from ddcm.pipeline import DDCMPipeline
from ddcm.runtime.files import write_atomically
from pocket.batches import level
from pocket.corpus import SAMPLE_RATE, Corpus

SECONDS = 5.12
CHOICES = (
    ("sustained note, cello", "music", "single note, cello"),
    ("sustained note, flute", "music", "single note, flute"),
    ("solo violin", "music", "single note, violin"),
    ("strings", "music", "tremolo, Strings"),
    ("pad", "music", "Halo Pad"),
    ("church organ", "music", "church organ"),
    ("piano", "music", "grand piano"),
    ("electric guitar", "music", "a guitar, e fifths"),
    ("trumpet", "music", "solotrumpet"),
    ("violin and orchestra", "music", "violin and orchestra"),
    ("orchestral game music", "music", "orchestral game music"),
    ("electronic music", "music", "(electronic|techno|game music)"),
    ("a woman's voice", "speech", "a woman"),
    ("a man's voice", "speech", "a man (reads|speaks)"),
    ("a spoken vowel or word", "speech", "the Catalan word"),
    ("drum roll", "percussion", "drum kit hit, roll"),
    ("snare", "percussion", "snare"),
    ("ride cymbal", "percussion", "ride bell"),
    ("water", "effects", "ambience: water"),
    ("explosion", "effects", "explosion"),
)  # (title, kind, pattern of the caption)
WAYS = ("input", "plain", "refined", "2 kbps")

PAGE = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Twenty clips</title><style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 64rem; padding: 1rem; color: #222; }
section { border-top: 1px solid #ccc; padding: .5rem 0; }
h2 { font-size: 1rem; margin: .3rem 0; }
div { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: .5rem; }
audio { width: 100%; }
</style></head><body><h1>Twenty clips, four ways</h1>
<p>{{ backbone }}. Numbers are log_mel_mae_db, lower is better. No clip was trained on.</p>
{% for row in rows %}<section><h2>{{ row.title }} <small>({{ row.caption }})</small></h2><div>
{% for way in ways %}<label>{{ way }}{% if way in row.errors %}, {{ "%.2f"|format(row.errors[way]) }} dB{% endif %}
<audio controls preload="none" src="{{ row.files[way] }}"></audio></label>
{% endfor %}</div></section>
{% endfor %}</body></html>
""",
    autoescape=True,
)


@dataclass(frozen=True)
class Row:
    """One clip: its sounds (S,) by way, the files they are in, and the errors against the input in dB."""

    title: str
    caption: str
    sounds: dict[str, torch.Tensor]
    files: dict[str, str]
    errors: dict[str, float]


def choose(corpus: Corpus) -> list[tuple[str, str, torch.Tensor]]:
    """(title, caption, levelled audio (S,)) of each choice that the corpus has, at most ``SECONDS`` of it."""
    chosen, used = [], set()
    for title, kind, pattern in CHOICES:
        matching = (c for c in corpus.of("val", kind) if re.search(pattern, c.caption) and c.offset not in used)
        clip = next((c for c in matching if c.length >= 0.3 * SAMPLE_RATE), None)
        if clip is not None:
            used.add(clip.offset)
            audio = level(corpus.audio(clip, 0, round(SECONDS * SAMPLE_RATE)))
            chosen.append((title, clip.caption, torch.from_numpy(audio).float()))
    return chosen


def render(pipe: DDCMPipeline, title: str, caption: str, audio: torch.Tensor, number: int) -> Row:
    plain = pipe.reconstruct(audio, SAMPLE_RATE, "matched", vocoder="backbone").audio
    refined = pipe.reconstruct(audio, SAMPLE_RATE, "matched", vocoder="refined").audio
    decoded = pipe.decompress(pipe.compress(audio, SAMPLE_RATE, kbps=2.0)).audio
    sounds = dict(zip(WAYS, (audio, plain, refined, decoded), strict=True))
    files = {way: f"{number:02d}-{way.replace(' ', '')}.flac" for way in WAYS}
    errors = {way: log_mel_mae_db(audio, sounds[way]) for way in WAYS[1:]}
    return Row(title, caption, sounds, files, errors)


def table(rows: list[Row]) -> str:
    lines = ["| clip | caption | " + " | ".join(f"{way} (dB)" for way in WAYS[1:]) + " |", "|---|---|---|---|---|"]
    for row in rows:
        errors = " | ".join(f"{row.errors[way]:.2f}" for way in WAYS[1:])
        lines.append(f"| {row.title} | {row.caption} | {errors} |")
    return "\n".join(lines)


def write(rows: list[Row], folder: Path, backbone: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        for way, audio in row.sounds.items():
            soundfile.write(folder / row.files[way], audio.clamp(-1, 1).numpy(), SAMPLE_RATE, subtype="PCM_24")
    with write_atomically(folder / "index.html") as temporary:
        temporary.write_text(PAGE.render(rows=rows, ways=WAYS, backbone=backbone), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--out", type=Path, default=Path("runs/listening"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--card", type=Path, help="a model card to put the table into")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    pipe = DDCMPipeline.from_pretrained(args.backbone, device=args.device)
    rows = [render(pipe, *clip, n) for n, clip in enumerate(tqdm(choose(Corpus(args.corpus)), desc="clips"))]
    write(rows, args.out, args.backbone)
    text = table(rows)
    print(text)
    if args.card:
        fill(args.card, "pocket.listening", text)
