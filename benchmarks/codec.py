"""Rate against distortion on the validation clips: our modes and codebooks, Opus and Codec2, and the ceiling.

    python -m benchmarks.codec --corpus runs/corpus                      # everything; docs/codec.md, .csv and .png
    python -m benchmarks.codec --corpus runs/corpus --clips 2 --only turbo opus ceiling --out runs/codec

Bytes are those of the file. The ceiling is the VAE and the vocoder with nothing quantised; "over" is what a row loses
to it. Peers run where ``opusenc``, ``opusdec``, ``c2enc`` and ``c2dec`` are installed; PESQ and STOI, of speech only,
where their packages are. A row that was measured before is taken from the CSV: an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ddcm.audio import resample
from ddcm.metrics import log_mel_mae_db, lsd_db
from ddcm.pipeline import DDCMPipeline
from pocket.batches import validation
from pocket.corpus import SAMPLE_RATE, Corpus

RATES = (0.25, 0.5, 1.0, 2.0, 4.0)
FIELDS = ("system", "kind", "clip", "seconds", "bytes", "unet_calls", "encode_s", "decode_s", "log_mel_mae_db",
"lsd_db",
          "pesq_wb", "stoi", "visqol")  # fmt: skip
Coded = tuple[torch.Tensor, int, int, float, float]
"""(audio (S,), bytes, UNet calls, seconds to encode, seconds to decode)"""


def ours(pipe: DDCMPipeline, **settings) -> Callable[[torch.Tensor], Coded]:
    def code(audio: torch.Tensor) -> Coded:
        calls = [0]
        begin = time.perf_counter()
        data = pipe.compress(audio, SAMPLE_RATE, lambda done, total: calls.__setitem__(0, total), **settings)
        middle = time.perf_counter()
        heard = pipe.decompress(data).audio
        unet_calls = 0 if settings.get("mode") == "vq" else calls[0]
        return heard, len(data), unet_calls, middle - begin, time.perf_counter() - middle

    return code


def ceiling(pipe: DDCMPipeline) -> Callable[[torch.Tensor], Coded]:
    return lambda audio: (pipe.reconstruct(audio, SAMPLE_RATE, vocoder="refined").audio, 0, 0, 0.0, 0.0)


def opus(kbps: int) -> Callable[[torch.Tensor], Coded]:
    import soundfile

    def code(audio: torch.Tensor) -> Coded:
        with tempfile.TemporaryDirectory() as folder:
            plain, packed, back = (str(Path(folder) / name) for name in ("a.wav", "a.opus", "b.wav"))
            soundfile.write(plain, audio.numpy(), SAMPLE_RATE)
            begin = time.perf_counter()
            subprocess.run(["opusenc", "--quiet", "--bitrate", str(kbps), plain, packed], check=True)
            middle = time.perf_counter()
            subprocess.run(["opusdec", "--quiet", "--rate", str(SAMPLE_RATE), packed, back], check=True)
            end = time.perf_counter()
            heard = torch.from_numpy(soundfile.read(back, dtype="float32")[0])
            return in_step(audio, heard), Path(packed).stat().st_size, 0, middle - begin, end - middle

    return code


def codec2(bits: int) -> Callable[[torch.Tensor], Coded]:
    def code(audio: torch.Tensor) -> Coded:
        with tempfile.TemporaryDirectory() as folder:
            plain, packed, back = (str(Path(folder) / name) for name in ("a.raw", "a.c2", "b.raw"))
            narrow = resample(audio.numpy(), SAMPLE_RATE, 8000)
            (np.clip(narrow, -1, 1) * 32767).astype("<i2").tofile(plain)
            begin = time.perf_counter()
            subprocess.run(["c2enc", str(bits), plain, packed], check=True, capture_output=True)
            middle = time.perf_counter()
            subprocess.run(["c2dec", str(bits), packed, back], check=True, capture_output=True)
            end = time.perf_counter()
            wide = resample(np.fromfile(back, "<i2").astype(np.float32) / 32768, 8000, SAMPLE_RATE)
            return in_step(audio, torch.from_numpy(wide)), Path(packed).stat().st_size, 0, middle - begin, end - middle

    return code


def in_step(audio: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
    """``heard`` without the delay of its codec, as long as ``audio``: the best of shifts by 10 ms up to 100 ms."""

    def shifted(frames: int) -> torch.Tensor:
        moved = heard[frames * 160 :][: len(audio)]
        return torch.nn.functional.pad(moved, (0, len(audio) - len(moved)))

    return min((shifted(frames) for frames in range(11)), key=lambda x: log_mel_mae_db(audio, x))


def systems(pipe: DDCMPipeline, codebook: bool, gaussian_atoms: int) -> dict[str, Callable[[torch.Tensor], Coded]]:
    found = {"ceiling": ceiling(pipe)}
    for kbps in RATES:
        found[f"turbo hadamard {kbps:g}"] = ours(pipe, kbps=kbps)
        found[f"turbo gaussian {kbps:g}"] = ours(pipe, kbps=kbps, book="gaussian", noise_atoms=gaussian_atoms)
        found[f"classic {kbps:g}"] = ours(pipe, kbps=kbps, mode="classic")
    if codebook:
        found["vq"] = ours(pipe, mode="vq")
    if shutil.which("opusenc") and shutil.which("opusdec"):
        found["opus 6"] = opus(6)
    if shutil.which("c2enc") and shutil.which("c2dec"):
        found |= {f"codec2 {bits / 1000:g}": codec2(bits) for bits in (1200, 2400, 3200)}
    return found


def judged(audio: torch.Tensor, heard: torch.Tensor, kind: str) -> dict[str, float | str]:
    row: dict[str, float | str] = dict(log_mel_mae_db=log_mel_mae_db(audio, heard), lsd_db=lsd_db(audio, heard))
    if kind == "speech":
        try:
            from pesq import PesqError, pesq
            from pystoi import stoi
        except ImportError:
            return row
        row["stoi"] = float(stoi(audio.numpy(), heard.numpy(), SAMPLE_RATE))
        value = pesq(SAMPLE_RATE, audio.numpy(), heard.numpy(), "wb", on_error=PesqError.RETURN_VALUES)
        row["pesq_wb"] = float(value) if value > 0 else ""  # it found no utterance
    return row


def table(rows: list[dict]) -> str:
    """Means over clips, with the loss against the ceiling on the same clips."""
    by_system: dict[str, list[dict]] = {}
    for row in rows:
        by_system.setdefault(row["system"], []).append(row)
    top = {row["clip"]: float(row["log_mel_mae_db"]) for row in by_system.get("ceiling", [])}
    head = ("system", "clips", "kbps", "UNet calls", "log_mel_mae_db", "over", "lsd_db", "pesq_wb", "stoi", "encode, s")
    lines = [f"| {' | '.join(head)} | decode, s |", "|" + "---|" * (len(head) + 1)]
    for name, mine in by_system.items():
        kbps = sum(int(r["bytes"]) for r in mine) / 125 / sum(float(r["seconds"]) for r in mine)
        over = [float(r["log_mel_mae_db"]) - top[r["clip"]] for r in mine if r["clip"] in top]
        means = {key: [float(r[key]) for r in mine if r[key] not in ("", None)] for key in FIELDS[5:]}
        mean = {key: f"{np.mean(values):.2f}" if values else "-" for key, values in means.items()}
        cells = [name, len(mine), f"{kbps:.2f}" if kbps else "-", mean["unet_calls"], mean["log_mel_mae_db"]]
        cells += [f"{np.mean(over):.2f}" if over else "-"] + [mean[key] for key in ("lsd_db", "pesq_wb", "stoi")]
        lines.append("| " + " | ".join(map(str, [*cells, mean["encode_s"], mean["decode_s"]])) + " |")
    return "\n".join(lines)


def plot(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    curves: dict[str, dict[str, list[dict]]] = {}
    for row in rows:
        family = row["system"].rsplit(" ", 1)[0] if row["system"][-1].isdigit() else row["system"]
        curves.setdefault(family, {}).setdefault(row["system"], []).append(row)
    for family, points in curves.items():
        x = [sum(int(r["bytes"]) for r in p) / 125 / sum(float(r["seconds"]) for r in p) for p in points.values()]
        y = [np.mean([float(r["log_mel_mae_db"]) for r in p]) for p in points.values()]
        if family == "ceiling":
            axes.axhline(y[0], color="black", linestyle=":", label="VAE + vocoder")
        else:
            axes.plot(x, y, "o-", label=family)
    axes.set(xscale="log", xlabel="kbps of the file", ylabel="log_mel_mae_db (lower is better)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--codebook", default="checkpoints/codebooks/pocket-1024")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--clips", type=int, help="of each kind as many; default all 57")
    parser.add_argument("--seconds", type=float, default=5.12)
    parser.add_argument("--only", nargs="+", default=[""], help="systems whose names begin so")
    parser.add_argument("--gaussian_atoms", type=int, default=16384)
    parser.add_argument("--out", type=Path, default=Path("docs/codec"), help="written with .csv, .md and .png")
    args = parser.parse_args()
    pipe = DDCMPipeline.from_pretrained(args.backbone, args.codebook)
    clips = validation(Corpus(args.corpus), args.seconds, *([args.clips] if args.clips else []))
    target = args.out.with_suffix(".csv")
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(target.open())) if target.exists() else []
    done = {(row["system"], row["clip"]) for row in rows}
    with target.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, restval="")
        if not rows:
            writer.writeheader()
        for name, code in systems(pipe, args.codebook != "", args.gaussian_atoms).items():
            if not any(name.startswith(begin) for begin in args.only):
                continue
            for number, (clip, samples) in enumerate(tqdm(clips, desc=name)):
                key = f"{clip.path}#{number}"
                if (name, key) in done:
                    continue
                audio = torch.from_numpy(samples)
                heard, size, calls, encode_s, decode_s = code(audio)
                row = dict(system=name, kind=clip.kind, clip=key, seconds=len(audio) / SAMPLE_RATE, bytes=size)
                row |= dict(unet_calls=calls, encode_s=round(encode_s, 3), decode_s=round(decode_s, 3))
                row |= judged(audio, heard, clip.kind)
                writer.writerow(row)
                file.flush()
                rows.append({field: row.get(field, "") for field in FIELDS})
    text = table(rows)
    args.out.with_suffix(".md").write_text(text + "\n")
    plot(rows, args.out.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
