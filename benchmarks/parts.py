"""The gain of each measure that makes the backbone fast, part by part, on networks of the published size.

    python -m benchmarks.parts --threads 1                     # a CPU: seconds of processor time
    python -m benchmarks.parts --device cuda --dtypes float32 bfloat16

Weights are random, inputs are shorter than ten seconds (``--frames``), and the best of ``--repeats`` counts. "UNet at
60 % of 200 GFLOP/s" is the UNet's rate, with operations counted by torch, relative to the rate of a product of two
2048 x 2048 matrices in the same dtype and run. The table is written into docs/audioldm2.md.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.full_size import sizes
from benchmarks.marks import fill
from benchmarks.systems import clock
from ddcm.backbone.hifigan import HifiGan2d
from ddcm.backbone.parts import text_widths
from ddcm.backbone.tiny import RandomParts
from ddcm.cli.options import set_threads
from ddcm.runtime.memory import describe_machine

PAGE, MARK = Path("docs/audioldm2.md"), "benchmarks.parts"
SIZE = 2048  # of the matrices


class Timer:
    def __init__(self, device: str, repeats: int):
        self.device, self.repeats, self._now = device, repeats, clock(device)

    def __call__(self, work: Callable[[], object]) -> float:
        """The best of the repeats in seconds, after one that is not counted."""
        work()
        return min(self._once(work) for _ in range(self.repeats))

    def _once(self, work: Callable[[], object]) -> float:
        self._wait()
        begin = self._now()
        work()
        self._wait()
        return self._now() - begin

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def move(module: torch.nn.Module, device: str, dtype: torch.dtype, **layout) -> torch.nn.Module:
    return torch.nn.Module.to(module.eval(), device, dtype, **layout)


def measure_parts(args: argparse.Namespace, dtype: torch.dtype) -> Iterator[tuple[str, float, float]]:
    """(measure, seconds without it, seconds with it)"""
    timer, device = Timer(args.device, args.repeats), args.device
    parts = RandomParts(sizes(args.variant)[0], 0)
    mel = torch.randn(1, 1, args.frames, 64, device=device, dtype=dtype)
    z = torch.randn(1, 8, args.frames // 4, 16, device=device, dtype=dtype)

    vocoder = move(parts.make("vocoder"), device, dtype)
    two_dimensional = HifiGan2d(vocoder)
    yield (
        "vocoder in two dimensions, channels last",
        timer(lambda: vocoder(mel[:, 0])),
        timer(lambda: two_dimensional(mel[:, 0])),
    )
    vae = move(parts.make("vae"), device, dtype)
    baseline = timer(lambda: vae.decode(z)), timer(lambda: vae.encode(mel))
    vae.to(memory_format=torch.channels_last)
    yield "VAE decoder, channels last", baseline[0], timer(lambda: vae.decode(z))
    yield "VAE encoder, channels last", baseline[1], timer(lambda: vae.encode(mel))
    yield from measure_unet(args, dtype, move(parts.make("unet"), device, dtype), z, timer)


def measure_unet(args, dtype, unet, z, timer: Timer) -> Iterator[tuple[str, float, float]]:
    from diffusers.models.attention_processor import AttnProcessor
    from torch.utils.flop_counter import FlopCounterMode

    generated, text = text_widths(unet.config)

    def call(batch: int = 1) -> None:
        unet(
            z.repeat(batch, 1, 1, 1), torch.full((batch,), 500, device=z.device),
            encoder_hidden_states=z.new_zeros(batch, 8, generated),
            encoder_hidden_states_1=z.new_zeros(batch, 12, text),
            encoder_attention_mask_1=torch.ones(batch, 12, dtype=torch.long, device=z.device), return_dict=False,
        )  # fmt: skip

    once, twice = timer(call), timer(lambda: call(2))
    yield "guidance in one call", 2 * once, twice
    yield "guidance skipped at scale 1", twice, once
    fused = unet.attn_processors
    unet.set_attn_processor(AttnProcessor())
    yield "fused attention", timer(call), once
    unet.set_attn_processor(fused)
    with FlopCounterMode(display=False) as counter:
        call()
    a = torch.randn(SIZE, SIZE, device=z.device, dtype=dtype)
    ceiling = 2 * SIZE**3 / timer(lambda: a @ a)
    yield f"UNet at {counter.get_total_flops() / once / ceiling:.0%} of {ceiling / 1e9:.0f} GFLOP/s", once, once
    unet.to(memory_format=torch.channels_last)
    yield "UNet, channels last", once, timer(call)
    unet.to(memory_format=torch.contiguous_format)
    if args.compile:
        unet.compile(dynamic=False, mode="default" if args.device == "cpu" else "reduce-overhead")
        yield "UNet, --compile", once, timer(call)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="audioldm2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--frames", type=int, default=256, help="of the mel; 1024 are 10.24 s")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--mark", default=MARK, help="the table's name in the page; none: print only")
    args = parser.parse_args()
    set_threads(args.threads)
    head = f"{args.variant}, {args.frames / 100:g} s, {describe_machine(args.device)}"
    lines = [f"{head}; `python -m benchmarks.parts {' '.join(sys.argv[1:])}`", ""]
    lines += ["| measure | dtype | without, s | with, s | times |", "|---|---|---|---|---|"]
    print("\n".join(lines))
    for dtype in args.dtypes:
        for what, without, with_it in measure_parts(args, getattr(torch, dtype)):
            lines.append(f"| {what} | {dtype} | {without:.2f} | {with_it:.2f} | {without / with_it:.2f} |")
            print(lines[-1], flush=True)
            if args.mark != "none":  # after every row, so that an interrupted run leaves its rows
                fill(PAGE, args.mark, "\n".join(lines))


if __name__ == "__main__":
    main()
