"""The rate-distortion measurements as a table and as a plot."""

import csv
import math
from pathlib import Path

import numpy as np

from benchmarks.curves import error_at, rate_at
from benchmarks.marks import cell, mean
from ddcm.evaluation.perceptual import JUDGES, PERCEPTUAL
from ddcm.evaluation.rate_distortion import compute_kbps, group_by_family, group_by_system

FIELDS = ("system", "kind", "clip", "seconds", "bytes", "unet_calls", "encode_s", "sound_s", "mel_db", "plain_db",
          "refined_db", "lsd_db", *PERCEPTUAL, *JUDGES)  # fmt: skip
CEILING, NEAREST = "ceiling", "vq nearest atoms, levels "
HEAD = ("system", "clips", "kbps", "UNet calls", "mel, dB", "log_mel_mae_db, plain", "over", "refined", "over",
        "lsd_db", *PERCEPTUAL, *JUDGES, "code, s", "sound, s")  # fmt: skip
NOTE = """Means over clips; kbps are bytes over seconds, of all clips together, and headers count: clips of half a
second pay more of them than music does. The metrics from pesq_wb to word_error are of the speech alone. "code" is a
clip's share of the time that a group of clips took to be compressed, "sound" the VAE's decoder and the vocoder, which
``decompress`` needs besides the same UNet calls; one thread each. Rows marked * are of fewer clips than the ceiling:
their "over" is on the same ones."""

TICKS = (0.25, 0.5, 1, 2, 4, 8)
ERROR_TICKS = (1, 1.5, 2, 3, 4, 8, 12)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table; columns that it does not have are empty."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [{field: row.get(field) or "" for field in FIELDS} for row in csv.DictReader(file)]


def make_table(rows: list[dict]) -> str:
    systems = group_by_system(rows)
    ceiling = {row["clip"]: row for row in systems.get(CEILING, [])}
    lines = [NOTE, "", f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for name, own in systems.items():
        if name.startswith(NEAREST):
            continue
        same = [ceiling[r["clip"]] for r in own if r["clip"] in ceiling]
        over = {
            key: mean(own, key) - mean(same, key) if len(same) == len(own) else math.nan
            for key in ("plain_db", "refined_db")
        }
        star = "*" if len(own) < len(ceiling) else ""
        rate = compute_kbps(own)
        cells = [name + star, str(len(own)), f"{rate:.2f}" if rate else "-", cell(mean(own, "unet_calls"), 0)]
        cells += [cell(mean(own, "mel_db"), 2), cell(mean(own, "plain_db"), 2), cell(over["plain_db"], 2)]
        cells += [cell(mean(own, "refined_db"), 2), cell(over["refined_db"], 2)]
        cells += [cell(mean(own, key), 2) for key in ("lsd_db", *PERCEPTUAL, *JUDGES, "encode_s", "sound_s")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compare_noise_codebooks(rows: list[dict]) -> str:
    """Sentences: what the one noise codebook loses to the other, clip by clip at equal rate. Empty without both."""
    systems, pairs = group_by_system(rows), {}
    for name, own in systems.items():
        family, _, rate = name.rpartition(" ")
        other = {row["clip"]: row for row in systems.get(f"turbo gaussian {rate}", [])}
        if family == "turbo hadamard" and other:
            pairs[rate] = [float(r["mel_db"]) - float(other[r["clip"]]["mel_db"]) for r in own if r["clip"] in other]
    if not pairs:
        return ""
    spreads = "; ".join(f"{_spread(gaps)} at {rate} kbps" for rate, gaps in pairs.items())
    together = [gap for gaps in pairs.values() for gap in gaps]
    return (
        "Hadamard against gaussian, clip by clip: difference of the mel error in dB (its standard error), negative\n"
        f"where Hadamard is nearer: {spreads}; {_spread(together)} over all {len(together)} pairs.\n"
    )


def compare_codes(rows: list[dict]) -> str:
    """A sentence: what vq saves against the nearest atoms of as many levels, at the same mel error on the same clips.
    Empty without both."""
    systems = group_by_system(rows)
    saved = []
    for name, own in systems.items():
        clips, levels = {row["clip"] for row in own}, name.rpartition(" ")[2]
        if not name.startswith("vq ") or name.startswith(NEAREST):
            continue
        plain = [
            [row for row in rs if row["clip"] in clips] for other, rs in systems.items() if other.startswith(NEAREST)
        ]
        curve = sorted((compute_kbps(rs), mean(rs, "mel_db")) for rs in plain if len(rs) == len(own))
        if len(curve) > 1:
            saved.append(f"{100 * (1 - compute_kbps(own) / rate_at(curve, mean(own, 'mel_db'))):.0f} % of {levels}")
    if not saved:
        return ""
    return (
        "Bits that the choice and the models of codes save against the nearest atoms with counts alone, at the same\n"
        f"mel error, by levels: {', '.join(saved)}.\n"
    )


def compare_hybrid(rows: list[dict]) -> str:
    """Two tables: each hybrid beside turbo and vq at its rate, by lines between their points, by means of all clips and
    clip by clip. Empty without all three."""
    systems = {name: rs for name, rs in group_by_system(rows).items() if not name.startswith(NEAREST)}
    lines, by_clip = [], []
    for name, own in systems.items():
        if not name.startswith("hybrid "):
            continue
        gaps = [
            _list_gaps(own, systems, parent, key)
            for key in ("mel_db", "refined_db")
            for parent in ("turbo hadamard", "vq")
        ]
        by_clip.append(f"| {name} | {' | '.join(f'{_spread(each)} of {len(each)}' for each in gaps)} |")
        cells = [name, f"{compute_kbps(own):.2f}"]
        for key in ("mel_db", "refined_db"):
            cells.append(f"{mean(own, key):.3f}")
            for parent in ("turbo hadamard", "vq"):
                same = [rs for other, rs in systems.items() if other.startswith(f"{parent} ") and len(rs) == len(own)]
                curve = sorted((compute_kbps(rs), mean(rs, key)) for rs in same)
                cells.append(f"{error_at(curve, compute_kbps(own)):.3f}" if len(curve) > 1 else "-")
        lines.append(f"| {' | '.join(cells)} |")
    if not lines:
        return ""
    head = "| system | kbps | mel, dB | turbo there | vq there | refined, dB | turbo there | vq there |\n|" + "---|" * 8
    about = "The hybrid beside its parents at its rate, by lines between their points in the logarithms:"
    clips_head = "| system | mel over turbo, dB | mel over vq | refined over turbo | refined over vq |\n|" + "---|" * 5
    clips_about = """Clip by clip, at the rate of each hybrid file, as far as the parent's files reach it:
mean of the differences, its standard error, clips. A clip's vq files have the rate that its codes happen to take, so
the means above give vq more bits for harder clips."""
    return "\n".join([about, "", head, *lines, "", clips_about, "", clips_head, *by_clip, ""])


def _list_gaps(own: list[dict], systems: dict[str, list[dict]], parent: str, key: str) -> list[float]:
    """What each clip of a system has over a parent's curve of the same clip at its rate; not beyond the curve."""
    curves: dict[str, dict[float, float]] = {}
    for name, rows in systems.items():
        for row in rows if name.startswith(f"{parent} ") else ():
            curves.setdefault(row["clip"], {})[compute_kbps([row])] = float(row[key])
    gaps = []
    for row in own:
        curve, rate = sorted(curves.get(row["clip"], {}).items()), compute_kbps([row])
        if len(curve) > 1 and curve[0][0] <= rate <= curve[-1][0]:
            gaps.append(float(row[key]) - error_at(curve, rate))
    return gaps


def _spread(gaps: list[float]) -> str:
    if len(gaps) < 2:
        return "too few clips"
    return f"{np.mean(gaps):+.3f} ({np.std(gaps, ddof=1) / len(gaps) ** 0.5:.3f})"


def write_page(rows: list[dict], command: str, backbone: str, name: str) -> str:
    """The table under its command and its picture, ``name``.png."""
    about = f"Written by `{command}`: {backbone}, validation clips of the pool."
    picture = f"![log_mel_mae_db over kbps]({name}.png)"
    sentences = filter(None, (compare(rows) for compare in (compare_hybrid, compare_codes, compare_noise_codebooks)))
    return "\n\n".join(["# Rate against distortion", about, picture, make_table(rows), *sentences]).strip() + "\n"


def plot(rows: list[dict], path: Path) -> None:
    """log_mel_mae_db after both vocoders over the rate of the files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, both = pyplot.subplots(1, 2, figsize=(12, 5.2), layout="constrained", sharey=True)
    families = group_by_family(group_by_system(rows))
    colours = {family: f"C{number}" for number, family in enumerate(families)}  # the same on both sides
    for axes, key, title in zip(both, ("plain_db", "refined_db"), ("the backbone's vocoder", "refined"), strict=True):
        for family, points in families.items():
            known = [p for p in points if not math.isnan(mean(p, key))]
            if known and family == CEILING:
                axes.axhline(mean(known[0], key), color="black", linestyle=":", label="VAE + vocoder")
            elif known:
                axes.plot(
                    *zip(*sorted((compute_kbps(p), mean(p, key)) for p in known), strict=True),
                    "o-",
                    label=family,
                    color=colours[family],
                )
        axes.set(xlabel="kbps of the file", ylabel="log_mel_mae_db (lower is better)", title=title)
        axes.set(xscale="log", yscale="log")
        axes.set_xticks(TICKS, [f"{rate:g}" for rate in TICKS])
        axes.set_yticks(ERROR_TICKS, [f"{error:g}" for error in ERROR_TICKS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    named = {label: handle for axes in both for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    # Below both: a legend inside covers points.
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
