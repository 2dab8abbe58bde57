"""Time and memory of each recipe for ten seconds of audio, beside the times of the scripts that recipes come from.

    python -m benchmarks.reconstruct --out docs/speed.md         # the embedded backbone
    python -m benchmarks.reconstruct --backbone cvssp/audioldm2-music --device cuda

A run before the first timing loads the weights. The median of the repeats counts; long recipes are not repeated.
Recipes that diffuse have a prompt and guidance, as in the scripts.
"""

import argparse
import statistics
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.marks import fill
from ddcm.audio.files import read_audio
from ddcm.pipeline import DDCMPipeline
from ddcm.recipes import RECIPES
from ddcm.runtime.memory import describe_machine, measure_cost

SCRIPTS = {  # recipe -> time that the authors of its script state
    "ultimate-fix": "30-45 s",
    "v5-high-freq": "45-60 s",
    "input-based": "2-3 min",
    "improved": "2-3 min",
    "full-diffusion": "5-10 min",
}
DEFAULT = [name for name, recipe in RECIPES.items() if recipe.verb == "reconstruct" or name in SCRIPTS]
PROMPT = "game music"
MARK = "benchmarks.reconstruct"  # other tables of the page stay
LONG_S = 10  # longer runs are not repeated


def concatenate(seconds: float, files: list[str]) -> torch.Tensor:
    """The recordings one after the other, repeated up to ``seconds`` at 16 kHz: (S,)."""
    size, audio = round(seconds * 16000), torch.cat([read_audio(file) for file in files])
    return audio.repeat(-(-size // len(audio)))[:size]


def time_recipe(pipe: DDCMPipeline, name: str, audio: torch.Tensor, repeats: int) -> tuple[float, float]:
    """Median seconds and largest peak in MiB."""
    verb = RECIPES[name].verb

    def work(**more) -> None:
        if verb == "generate":
            pipe.generate(PROMPT, len(audio) / 16000, recipe=name, **more)
        elif verb == "transform":
            pipe.transform(audio, 16000, PROMPT, recipe=name, **more)
        else:
            pipe.reconstruct(audio, 16000, recipe=name, **more)

    work(**({} if verb == "reconstruct" else {"steps": 2, "n": 1}))
    costs = []
    while len(costs) < repeats and not (costs and costs[-1].seconds > LONG_S):
        with measure_cost(pipe.backbone.device) as spent:
            work()
        costs.append(spent)
    return statistics.median(spent.seconds for spent in costs), max(spent.peak_mib for spent in costs)


def render_page(rows: dict[str, tuple[float, float]], seconds: float, backbone: str, device: str) -> str:
    reconstruct = [rows[name][0] for name in rows if RECIPES[name].verb == "reconstruct"]
    machine = describe_machine(device)
    lines = [
        f"`python -m benchmarks.reconstruct` writes this table: {seconds:g} s of audio, backbone {backbone},",
        f"{machine}. Times are wall time after loading. The last column is the time that the authors of the",
        "scripts state, for the published AudioLDM2 on a GPU; they do not say whether it includes loading. The",
        "two columns are of different backbones on different machines, so they do not compare speeds.",
        "",
        "| recipe | seconds | peak MiB | its script, AudioLDM2 on a GPU |",
        "|---|---|---|---|",
        *(f"| `{name}` | {s:.2f} | {mib:.0f} | {SCRIPTS.get(name, '-')} |" for name, (s, mib) in rows.items()),
    ]
    if reconstruct:
        lines += ["", f"Reconstruction takes {min(reconstruct):.2f} to {max(reconstruct):.2f} s."]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--codebook", default="checkpoints/codebooks/pocket-1024", help="or none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of the CPU; torch decides where it is left out")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=DEFAULT)
    parser.add_argument("--out", type=Path, help="a page to write; the table is printed in any case")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    codebook = None if args.codebook == "none" else args.codebook
    pipe = DDCMPipeline.from_pretrained(args.backbone, codebook, device=args.device)
    audio = concatenate(args.seconds, ["examples/speech.flac", "examples/melodic.flac", "examples/drumloop.flac"])
    rows = {name: time_recipe(pipe, name, audio, args.repeats) for name in tqdm(args.recipes, unit="recipe")}
    text = render_page(rows, args.seconds, args.backbone, args.device)
    print(text)
    if args.out:
        if not args.out.exists():
            args.out.write_text(f"<!-- {MARK} -->\n<!-- end of {MARK} -->\n", encoding="utf-8")
        fill(args.out, MARK, text)


if __name__ == "__main__":
    main()
