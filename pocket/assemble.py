"""The trained stages -> a folder that the stock ``diffusers.AudioLDM2Pipeline.from_pretrained`` loads.

python -m pocket.assemble --runs runs/pocket --out checkpoints/pocket
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AudioLDM2Pipeline, DDIMScheduler
from transformers import logging as transformers_logging

from ddcm.errors import UserError
from pocket import checkpoints, pretrained, text, unet, vae, vocoder
from pocket.clap import load_clap

STAGES = ("vae", "vocoder", "clap", "unet")
KEPT = ("README.md",)  # of a folder that is written anew
LIMIT = 30e6  # bytes of all files together


def build(runs: Path, allow_untrained: bool = False, start: Path | None = None) -> AudioLDM2Pipeline:
    """The pipeline in fp32. A stage without a checkpoint is taken from the assembled folder ``start``; with
    ``allow_untrained`` it keeps its first, random weights.
    """
    trained = {name: (runs / name / "last.ckpt").exists() for name in STAGES}
    missing = [name for name, there in trained.items() if not there]
    if missing and not (start or allow_untrained):
        raise UserError(
            f"{runs} has no last.ckpt of {', '.join(missing)}: train them, or give --start or --allow_untrained"
        )
    known = {name: there or start is not None for name, there in trained.items()}
    encoder = vae.load_vae(runs, start) if known["vae"] else vae.untrained()
    if trained["vocoder"]:
        generator = vocoder.load_vocoder(runs)
    else:
        generator = pretrained.vocoder(start) if start else vocoder.VocoderStage(runs=str(runs)).vocoder
    if known["clap"]:
        clap, pieces = load_clap(runs, start)
    else:
        pieces = text.learn_pieces(text.captions())
        clap = text.clap(len(pieces["bpe"]))
    if trained["unet"]:
        if not (known["vae"] and known["clap"]):
            raise UserError(f"{runs} has a unet, but not the vae and clap it was trained with")
        parts, checkpoint = unet.load_parts(runs)
        unet.check_frozen(checkpoint["frozen"], unet.frozen_digests(encoder, clap))
        encoder.register_to_config(scaling_factor=round(float(checkpoint["state_dict"]["scaling_factor"]), 6))
    elif start:
        first = pretrained.vae(start)
        unet.check_frozen(unet.frozen_digests(first, pretrained.clap(start)[0]), unet.frozen_digests(encoder, clap))
        parts = pretrained.parts(start)
        encoder.register_to_config(scaling_factor=first.config.scaling_factor)
    else:
        parts = unet.trained_parts(len(pieces["unigram"]))
        encoder.register_to_config(scaling_factor=1.0)
    tokenizer, tokenizer_2 = text.tokenizers(pieces)
    return AudioLDM2Pipeline(
        vae=encoder,
        text_encoder=clap,
        text_encoder_2=parts["t5"],
        projection_model=parts["projection"],
        language_model=parts["gpt2"],
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        feature_extractor=text.feature_extractor(),
        unet=parts["unet"],
        scheduler=DDIMScheduler(**unet.SCHEDULER),
        vocoder=generator,
    )


def training(runs: Path, start: Path | None = None, fresh: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """Optimiser steps and minutes of each stage, by its checkpoint. Those of ``start`` are added but for the stages
    ``fresh``, which began with random weights.
    """
    facts = pretrained.training(start) if start else {}
    if (runs / "linear" / "last.ckpt").exists():
        facts.pop("vae", None)  # it began anew
    facts = {stage: spent for stage, spent in facts.items() if stage not in fresh}
    for stage in ("linear", *STAGES):
        if (runs / stage / "last.ckpt").exists():
            now = checkpoints.spent(checkpoints.last(runs, stage))
            before = facts.get(stage, {"steps": 0, "minutes": 0.0})
            facts[stage] = {
                "steps": before["steps"] + now["steps"], "minutes": round(before["minutes"] + now["minutes"], 1)
            }  # fmt: skip
    return {stage: facts[stage] for stage in ("linear", *STAGES) if stage in facts}


def save(pipeline: AudioLDM2Pipeline, out: Path, facts: dict | None = None) -> int:
    """fp16 safetensors in ``out``, which appears whole or not at all; returns the bytes.

    The model card is kept. ``facts`` on the training become ``training.json``.
    """
    if out.exists() and not (out / "model_index.json").exists() and any(p.name not in KEPT for p in out.iterdir()):
        raise UserError(f"{out} exists and is not a pipeline: give another --out")
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.half()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        fresh = Path(temporary) / "new"
        pipeline.save_pretrained(fresh, safe_serialization=True)
        for file in fresh.glob("*/config.json"):
            config = json.loads(file.read_text())
            config.pop("_name_or_path", None)  # where it was loaded from
            # transformers loads in the dtype written here, diffusers in fp32: they must agree.
            file.write_text(json.dumps(_float32(config), indent=2) + "\n")
        for file in fresh.glob("*/tokenizer.json"):  # without the indentation, half the bytes
            tokenizer = json.loads(file.read_text(encoding="utf-8"))
            file.write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
        (fresh / "training.json").write_text(json.dumps(facts or {}, indent=2) + "\n")
        for file in filter(Path.exists, (out / name for name in KEPT)):
            shutil.copy(file, fresh)
        size = sum(file.stat().st_size for file in fresh.rglob("*") if file.is_file())
        if size > LIMIT:
            raise UserError(f"the pipeline has {size / 1e6:.1f} MB, more than the {LIMIT / 1e6:.0f} MB it may have")
        if out.exists():
            out.rename(Path(temporary) / "old")
        fresh.rename(out)
    out.chmod(0o755)
    return size


def _float32(config: dict) -> dict:
    """CLAP's config has a dtype in each of its towers as well."""
    nested = {name: _float32(value) for name, value in config.items() if isinstance(value, dict)}
    return config | nested | ({"dtype": "float32"} if "dtype" in config else {})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/pocket"))
    parser.add_argument("--out", type=Path, default=Path("checkpoints/pocket"))
    parser.add_argument("--allow_untrained", action="store_true", help="random weights for stages without checkpoint")
    parser.add_argument("--start", type=Path, help="the assembled folder that the stages were started from")
    parser.add_argument("--fresh", nargs="*", default=[], choices=STAGES, help="stages that began with random weights")
    args = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        size = save(
            build(args.runs, args.allow_untrained, args.start), args.out, training(args.runs, args.start, args.fresh)
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{size / 1e6:.2f} MB in {args.out}")
