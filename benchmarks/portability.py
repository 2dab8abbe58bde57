"""A ``.ddcm`` file decoded with other instruction sets, threads, windows in a call and dtypes.

    python -m benchmarks.portability [--page docs/explanation.md]

The file is made and decoded here, with all instructions of the processor, one thread and one window in a call. Each row
is another process that decodes it. ``benchmarks.gpu`` does the same between a CPU and a GPU.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from tqdm import tqdm

from benchmarks.marks import fill
from ddcm.audio.files import read_audio
from ddcm.audio.mel import mel_error_db
from ddcm.pipeline import DDCMPipeline

OLDEST = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
ROWS = (  # title, environment, threads, windows in a call, dtype
    ("the same again", {}, 1, 1, "float32"),
    ("AVX2 alone", AVX2, 1, 1, "float32"),
    ("SSE4.1 alone", OLDEST, 1, 1, "float32"),
    ("two threads", {}, 2, 1, "float32"),
    ("all windows in a call", {}, 1, 8, "float32"),
    ("SSE4.1, two threads, all windows", OLDEST, 2, 8, "float32"),
    ("UNet in float16", {}, 1, 1, "float16"),
)
DECODE = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from ddcm.backbone import load
from ddcm.codec.decompress import decompress
source, target, backbone, threads, batch_size, dtype = sys.argv[1:]
torch.set_num_threads(int(threads))
data = Path(source).read_bytes()
out = decompress(data, load(backbone, dtype=dtype), vocoder="backbone", batch_size=int(batch_size))
save_file({"latent": out.latent.contiguous(), "mel": out.mel.contiguous()}, target)
"""


def measure(args: argparse.Namespace) -> list[str]:
    """The table in Markdown."""
    head = ("decoded with", *(f"{rate:g} kbps: {name}" for rate in args.rates for name in ("latent, rms", "mel, dB")))
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    audio = read_audio(args.audio).repeat(8)[: round(16000 * args.seconds)]
    torch.set_num_threads(1)
    pipe = DDCMPipeline.from_pretrained(args.backbone)
    with tempfile.TemporaryDirectory() as folder:
        files, home = [], []
        for rate in args.rates:
            files.append(Path(folder) / f"{rate:g}.ddcm")
            files[-1].write_bytes(pipe.compress(audio, 16000, kbps=rate, steps=args.steps))
            home.append(pipe.decompress(files[-1].read_bytes(), vocoder="backbone"))
        for title, environment, threads, batch_size, dtype in tqdm(ROWS, desc="rows"):
            cells = [title]
            for file, out in zip(files, home, strict=True):
                target = file.with_suffix(".safetensors")
                words = [file, target, args.backbone, threads, batch_size, dtype]
                command = [sys.executable, "-c", DECODE, *map(str, words)]
                subprocess.run(command, check=True, env=os.environ | environment)
                away = load_file(target)
                cells.append(f"{float((away['latent'] - out.latent).square().mean().sqrt()):.1e}")
                cells.append(f"{mel_error_db(away['mel'], out.mel):.5f}")
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", f"{args.seconds:g} s of {args.audio}, several windows; latents have a deviation of about 1."]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--audio", type=Path, default=Path("examples/speech.flac"))
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--page", type=Path, help="a page to put the table into")
    args = parser.parse_args()
    text = "\n".join(measure(args))
    print(text)
    if args.page:
        fill(args.page, "benchmarks.portability", text)
