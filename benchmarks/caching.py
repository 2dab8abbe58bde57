"""Fewer full UNet calls in the codec: what a cache of the UNet's deep features saves, and what it costs.

    python -m benchmarks.caching --corpus runs/corpus

Training clips of 2.56 s are coded at one rate and number of steps. A row is a choice of calls that compute the deep
layers: the first ``full`` of a loop, then every ``interval``-th. ``cut`` is the number of skip connections above what
is kept. ``--cache_interval`` has the ``full`` and the ``cut`` of its row here. "over" is what the decoded mels lose to
those without a cache, "multiply-adds" are those of all UNet calls of a window, attention included, and seconds are
processor time for some seconds of sound. Two rows compute the mel's part in every third step instead of every second
(``--mel_interval``), and one of them has more steps, for which the cheap calls leave room. One has fewer steps and no
cache. The table and its plot are in docs/speed.md. ``--time_only`` codes no clips and writes nothing: for random
weights.
"""

import argparse
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.marks import fill
from benchmarks.trial import Trial, make_trial, read_training_clips
from ddcm.audio.files import read_audio
from ddcm.backbone import base, latent_diffusion
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.rate_control import interpolate, read_rows
from ddcm.pipeline import DDCMPipeline
from ddcm.runtime.memory import describe_machine

PAGE, MARK, PICTURE = Path("docs/speed.md"), "benchmarks.caching", Path("docs/caching.png")
FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
SHIPPED = base.FULL_CALLS, latent_diffusion.CUT
ROWS = [(1, *SHIPPED), (3, *SHIPPED), (4, *SHIPPED), (2, 0, 1)]
HEAD = ("steps", "interval", "full", "cut", "mel's interval", "full calls", "multiply-adds, G", "times fewer",
        "loss, dB", "over", "compress, s", "decompress, s", "times both")  # fmt: skip


def count_multiply_adds(backbone, seconds: float, cached: bool) -> float:
    """Of a UNet call on one window, in units of 10^9. Torch counts its own operations, which a gradient asks for."""
    x, cache = torch.randn(1, 8, round(25 * seconds), 16), base.FeatureCache(1 << 20)
    cache.features = backbone.unet.forward(
        x, torch.full((1,), 500), backbone.unet.forward.read_condition(backbone.null_condition(), x.dtype), 1,
        latent_diffusion.CUT,
    )[1]  # fmt: skip
    cache._t, cache._calls = 501, base.FULL_CALLS if cached else -1
    mapping = {FUSED: lambda q, k, v, *rest, out_shape=None, **options: sdpa_flop_count(q, k, v)}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter, torch.enable_grad():
        backbone.eps(x.requires_grad_(), 500, backbone.null_condition(), cache)
    return counter.get_total_flops() / 2e9


def measure(
    pipe: DDCMPipeline, trial: Trial | None, audio: torch.Tensor, kbps: float, steps: int, interval: int, mel: int
) -> dict[str, float]:
    backbone, full_calls, loss = pipe.backbone, base.FULL_CALLS, math.nan
    if trial is not None:
        header, targets = replace(trial.header, cache_interval=interval), replace(trial.targets, mel_interval=mel)
        shape = replace(interpolate(kbps, steps, read_rows(None, backbone.digest, interval)), steps=steps)
        loss = replace(trial, header=header, targets=targets).loss(shape, kbps)
    full = sum(i < full_calls or i % interval == 0 for i in range(steps))
    adds = full * count_multiply_adds(backbone, 10.24, False)
    adds += (steps - full) * count_multiply_adds(backbone, 10.24, True) if full < steps else 0
    clock = [time.process_time()]
    data = pipe.compress(audio, 16000, kbps=kbps, steps=steps, cache_interval=interval, mel_interval=mel)
    clock.append(time.process_time())
    pipe.decompress(data)
    clock.append(time.process_time())
    return dict(loss=loss, full=full, adds=adds, encode_s=clock[1] - clock[0], decode_s=clock[2] - clock[1])


def plot(rows: list[tuple[str, dict]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    first = rows[0][1]
    for label, row in rows:
        point = first["adds"] / row["adds"], row["loss"] - first["loss"]
        axes.plot(*point, "o")
        axes.annotate(label, point, xytext=(0, 6), textcoords="offset points", fontsize=8, ha="center")
    axes.margins(0.2, 0.12)
    axes.set(xlabel="times fewer multiply-adds of the UNet", ylabel="dB over no cache (lower is better)")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"), help="of pocket.corpus: its training clips")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--kbps", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--more", type=int, default=32, help="steps of another row with interval 3")
    parser.add_argument("--fewer", type=int, default=18, help="steps of the row without a cache")
    parser.add_argument("--seconds", type=float, default=5.12, help="of the sound whose coding is timed")
    parser.add_argument("--time_only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = DDCMPipeline.from_pretrained(args.backbone)
    trial = None if args.time_only else make_trial(pipe.backbone, read_training_clips(args.corpus, 2.56, args.clips))
    audio, samples = read_audio("examples/melodic.flac"), round(16000 * args.seconds)
    audio = audio.repeat(-(-samples // len(audio)))[:samples]
    pipe.decompress(pipe.compress(audio[:16000], 16000, steps=3))  # loads the weights
    lines = [f"{args.clips} clips, {args.kbps:g} kbps, {args.backbone}, {describe_machine()};",
             f"`python -m benchmarks.caching {' '.join(sys.argv[1:])}`", "", "![trade-off](caching.png)", "",
             f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]  # fmt: skip
    print("\n".join(lines))
    results: list[tuple[str, dict]] = []
    usual = CodecSettings.mel_interval
    rows = [(args.steps, usual, *row) for row in ROWS]
    rows += [(args.steps, 3, *ROWS[1]), (args.more, 3, *ROWS[1]), (args.fewer, usual, *ROWS[0])]
    for steps, mel, interval, full, cut in rows:
        base.FULL_CALLS, latent_diffusion.CUT = full, cut
        row = measure(pipe, trial, audio, args.kbps, steps, interval, mel)
        label = f"{steps} steps" if interval == 1 else f"{steps} steps, interval {interval} after {full}, mel {mel}"
        results.append((label, row))
        first = results[0][1]
        both = (first["encode_s"] + first["decode_s"]) / (row["encode_s"] + row["decode_s"])
        choice = ("1", "-", "-") if interval == 1 else (str(interval), str(full), str(cut))
        numbers = (
            f"{row['adds']:.0f}", f"{first['adds'] / row['adds']:.2f}", f"{row['loss']:.3f}",
            f"{row['loss'] - first['loss']:+.3f}", f"{row['encode_s']:.1f}", f"{row['decode_s']:.1f}", f"{both:.2f}",
        )  # fmt: skip
        cells = [str(steps), *choice, str(mel), str(row["full"]), *numbers]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
        if trial is not None:
            fill(PAGE, MARK, "\n".join(lines))  # after every row, so that an interrupted run leaves its rows
            plot(results, PICTURE)


if __name__ == "__main__":
    main()
