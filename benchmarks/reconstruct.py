"""How long each recipe takes for ten seconds of audio, beside what the scripts took that the recipes come from.

    python benchmarks/reconstruct.py                         # the pocket backbone
    python benchmarks/reconstruct.py --backbone cvssp/audioldm2-music --device cuda

Weights are loaded and every shape has been met before the clock starts; the median of the repeats counts. The scripts'
times are their authors', with the published AudioLDM2 on a GPU, loading included or not: they do not say. Another
backbone on another machine is another thing: read the columns beside each other, not as a race.
"""

from __future__ import annotations

import argparse
import statistics

import torch

from ddcm.audio import read_audio
from ddcm.door import machine
from ddcm.peak import cost
from ddcm.pipeline import DDCMPipeline
from ddcm.recipes import RECIPES

SCRIPTS = {  # recipe -> what its script's authors say
    "ultimate-fix": "30-45 s",
    "v5-high-freq": "45-60 s",
    "input-based": "2-3 min",
    "improved": "2-3 min",
    "full-diffusion": "5-10 min",
}


def clip(seconds: float, files: list[str]) -> torch.Tensor:
    """Recordings one after the other until there are ``seconds`` of them at 16 kHz: (S,)."""
    size, audio = round(seconds * 16000), torch.cat([read_audio(file) for file in files])
    return audio.repeat(-(-size // len(audio)))[:size]


def time_recipe(pipe: DDCMPipeline, name: str, audio: torch.Tensor, repeats: int) -> tuple[float, float]:
    """Median seconds and greatest MiB."""
    verb = RECIPES[name].verb

    def work(**more) -> None:
        if verb == "generate":
            pipe.generate("", len(audio) / 16000, recipe=name, **more)
        else:
            getattr(pipe, verb)(audio, 16000, recipe=name, **more)

    work(**({} if verb == "reconstruct" else {"steps": 2, "n": 1}))
    costs = []
    for _ in range(repeats):
        with cost(pipe.backbone.device) as spent:
            work()
        costs.append(spent)
    return statistics.median(spent.seconds for spent in costs), max(spent.peak_mib for spent in costs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--codebook", default="checkpoints/codebooks/pocket-1024", help="or none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of the CPU; torch decides where it is left out")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    pipe = DDCMPipeline.from_pretrained(
        args.backbone, None if args.codebook == "none" else args.codebook, device=args.device
    )
    audio = clip(args.seconds, ["examples/speech.flac", "examples/melodic.flac", "examples/drumloop.flac"])
    print(f"{args.seconds:g} s of audio, {args.backbone}, {machine(args.device)}\n")
    print("| recipe | seconds | peak MiB | its script, AudioLDM2 on a GPU |\n|---|---|---|---|")
    for name in args.recipes:
        seconds, peak_mib = time_recipe(pipe, name, audio, args.repeats)
        print(f"| `{name}` | {seconds:.2f} | {peak_mib:.0f} | {SCRIPTS.get(name, '-')} |", flush=True)
