"""The tables of data in the model card: hours by kind, and every package with its licences.

python -m pocket.data_card --card checkpoints/pocket/README.md
"""

import argparse
from collections import Counter
from pathlib import Path

from benchmarks.marks import fill
from pocket.corpus import KINDS, POOLS, example_files, pool, split_of


def count_hours() -> str:
    """Markdown: training clips and hours by pool and kind, and those for validation."""
    examples = example_files()
    clips: Counter[tuple[str, ...]] = Counter()
    seconds: Counter[tuple[str, ...]] = Counter()
    for row in pool():
        key = (row["pool"], row["kind"], split_of(row, examples))
        clips[key] += 1
        seconds[key] += float(row["duration"])
    lines = ["| pool | kind | training clips | hours | validation clips | hours |", "|---|---|---|---|---|---|"]
    for name in POOLS:
        for kind in KINDS:
            cells = [
                cell for split in ("train", "val")
                for cell in (str(clips[name, kind, split]), f"{seconds[name, kind, split] / 3600:.2f}")
            ]  # fmt: skip
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def list_licences() -> str:
    """Markdown: one row a package with its clips, its seconds, and the licences of its clips, the most common first."""
    rows = pool()
    lines = ["| package | clips | seconds | licences (clips) |", "|---|---|---|---|"]
    for package in sorted({row["package"] for row in rows}):
        mine = [row for row in rows if row["package"] == package]
        counts = Counter(row["licence"] for row in mine).most_common()
        licences = counts[0][0] if len(counts) == 1 else ", ".join(f"{name} ({n})" for name, n in counts)
        lines.append(f"| {package} | {len(mine)} | {sum(float(r['duration']) for r in mine):.0f} | {licences} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--card", type=Path, help="a model card to put the tables into")
    args = parser.parse_args()
    text = f"{count_hours()}\n\n{list_licences()}"
    print(text)
    if args.card:
        fill(args.card, "pocket.data_card", text)
