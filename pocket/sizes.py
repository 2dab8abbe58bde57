"""How large should each part be? Train it anew at several widths for the same minutes, and compare.

    python -m pocket.sizes --threads 1 --card checkpoints/pocket/README.md

Every run is one of ``pocket.train``, so it is resumed where it was cut off, and stays below ``--out``. The vocoder and
the UNet learn with the other parts of ``--start`` as they are. Minutes are of the clock: nothing else should run on
these cores. Prints a table in Markdown of what the fixed validation clips say; ``--card FILE`` puts it into a card.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import lightning as L

from benchmarks.marks import fill
from pocket.assemble import training
from pocket.corpus import Corpus
from pocket.train import build, load_validation


@dataclass(frozen=True)
class Part:
    widths: tuple[int, ...]  # the middle one is that of checkpoints/pocket
    minutes: dict[str, float]  # of each stage that makes it, in order
    model: str  # which attribute of the last stage its parameters are in
    metric: str  # what is validated, the lower the better


PARTS = {
    "vocoder": Part((192, 256, 384), {"vocoder": 12}, "vocoder", "val_with_vae_db"),
    "unet": Part((32, 64, 96), {"unet": 12}, "parts.unet", "val_eps_mse"),
    "vae": Part((24, 32, 48), {"linear": 3, "vae": 6}, "vae", "val_quantised_mel_db"),
}


def train(args: argparse.Namespace, name: str, width: int) -> Path:
    """Train a part at one width, or the rest of it -> its runs folder."""
    out = args.out / f"{name}-{width}"
    others = [] if name == "vae" else ["--start", str(args.start), "--fresh"]
    for stage, minutes in PARTS[name].minutes.items():
        command = ["--stage", stage, "--budget_minutes", str(minutes * args.scale), "--out", str(out), *others]
        command += ["--corpus", str(args.corpus), "--options", f"width={width}", "--quiet"]
        command += ["--threads", str(args.threads)] if args.threads else []
        subprocess.run([sys.executable, "-m", "pocket.train", *command], check=True)
    return out


def row(args: argparse.Namespace, name: str, width: int) -> str:
    """What came of it: a line of the table."""
    part, out = PARTS[name], train(args, name, width)
    stage = list(part.minutes)[-1]
    last = out / stage / "last.ckpt"
    module = build(stage, out, None if name == "vae" else args.start, {"width": width}, fresh=True)
    clips = load_validation(Corpus(args.corpus), args.per_kind)
    trainer = L.Trainer(
        accelerator="auto", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    (metrics,) = trainer.validate(module, clips, ckpt_path=last, weights_only=True, verbose=False)
    count = sum(parameter.numel() for parameter in attrgetter(part.model)(module).parameters())
    cells = (name, width, f"{count / 1e6:.2f}", f"{2 * count / 1e6:.1f}", training(out)[stage]["steps"])
    return f"| {' | '.join(map(str, cells))} | {part.metric} {metrics[part.metric]:.3f} |"


def sweep(args: argparse.Namespace) -> str:
    lines = ["| part | width | million parameters | MB | steps | validation |", "|---|---|---|---|---|---|"]
    for name in args.parts:
        for width in PARTS[name].widths:
            lines.append(row(args, name, width))
            print(lines[-1], flush=True)
    minutes = ", ".join(f"{name} {sum(PARTS[name].minutes.values()) * args.scale:g}" for name in args.parts)
    return "\n".join([*lines, "", f"Minutes of each run: {minutes}."])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--scale", type=float, default=1.0, help="times the minutes")
    parser.add_argument("--start", type=Path, default=Path("checkpoints/pocket"))
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--out", type=Path, default=Path("runs/sizes"))
    parser.add_argument("--per_kind", type=int, default=16, help="validation clips")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--card", type=Path, help="a model card to put the table into")
    args = parser.parse_args()
    text = sweep(args)
    print(text)
    if args.card:
        fill(args.card, "pocket.sizes", text)
