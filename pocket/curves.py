"""Draw how the stages learned: their validation figures over training steps, from the logs of a runs folder.

python -m pocket.curves --runs runs/pocket --out runs/pocket/curves.png
"""

import argparse
import sys
from pathlib import Path

from matplotlib import figure, ticker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ddcm.errors import UserError
from ddcm.runtime.files import write_atomically
from pocket.train import STAGES

Curve = list[tuple[int, float]]


def curves(logs: Path) -> dict[str, Curve]:
    """Name -> (step, value) of what was validated; a run that was resumed is one curve."""
    events = EventAccumulator(str(logs), size_guidance={"scalars": 0}).Reload()
    names = [name for name in events.Tags()["scalars"] if name.startswith("val_")]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}


def draw(runs: Path, out: Path) -> None:
    """A panel for each stage that was validated.

    Raises:
        UserError: no stage of ``runs`` has logs with validation figures.
    """
    lines_of = {logs.parent.name: curves(logs) for logs in runs.glob("*/logs")}
    lines_of = {stage: lines_of[stage] for stage in STAGES if lines_of.get(stage)}
    if not lines_of:
        raise UserError(f"{runs}: no stage in it has logs of a validation; train one with pocket.train first")
    sheet = figure.Figure(figsize=(4 * len(lines_of), 3.2), layout="constrained")
    for axes, (stage, lines) in zip(sheet.subplots(1, len(lines_of), squeeze=False)[0], lines_of.items(), strict=True):
        for name, points in lines.items():
            axes.plot(*zip(*points, strict=True), label=f"{name.removeprefix('val_')}, {points[-1][1]:.3g} at the end")
        axes.set(xlabel="training steps", title=stage, yscale="log")
        for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            which(ticker.FormatStrFormatter("%.3g"))
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8)
    with write_atomically(out) as temporary:
        sheet.savefig(temporary, dpi=100, format="png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/pocket"))
    parser.add_argument("--out", type=Path, default=Path("runs/pocket/curves.png"))
    args = parser.parse_args()
    try:
        draw(args.runs, args.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
