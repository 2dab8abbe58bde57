"""``inspect`` on the command line: facts on a backbone, a codebook or a ``.ddcm`` file, without running it."""

from typing import Any

from jsonargparse import Namespace

from ddcm.cli.options import Verbs, flag, print_table
from ddcm.codec.format import describe
from ddcm.errors import UserError
from ddcm.runtime.files import resolve_model
from ddcm.runtime.progress import progress_bar

TEXT = ("text_encoder", "text_encoder_2", "projection_model", "language_model")
PARTS = ("vae", "unet", "vocoder", *TEXT)
NEEDS: dict[str, list[tuple[str, ...]]] = {  # what it can do -> weights in memory at once, group after group
    "reconstruct": [("vae", "vocoder")],
    "compress, decompress, transform": [("vae", "unet", "vocoder")],
    "prompts, while they are encoded": [(part,) for part in TEXT],
    "candidates by CLAP score": [("vae", "unet", "vocoder", "text_encoder")],
}


def collect_facts(name: str) -> dict[str, Any]:
    """Facts on a backbone (folder, hub name), a codebook (folder, ``.ckpt``) or a ``.ddcm`` file. Raises UserError:
    ``name`` is none of them."""
    path = resolve_model(name)
    if path.is_file() and (path.suffix == ".ddcm" or path.open("rb").read(4) == b"ddcm"):
        return describe(path)
    if name.endswith(".ckpt") or (path / "model.safetensors").is_file():
        return _codebook(name)
    if path.exists() and not (path / "model_index.json").is_file():
        raise UserError(f"{name} is neither a codebook (config.json and model.safetensors, or .ckpt) nor a backbone")
    return _backbone(name)


def _codebook(name: str) -> dict[str, Any]:
    from ddcm.quantize.pretrained import load_codebook
    from ddcm.quantize.spec import to_spec
    from ddcm.quantize.vector import SingleCodebook

    codebook = load_codebook(name)
    quantizer = codebook.quantizer
    facts = {"what": "codebook", "quantizer": type(quantizer).__name__, **to_spec(quantizer)["config"]}
    for number, part in enumerate(part for part in quantizer.modules() if isinstance(part, SingleCodebook)):
        norms = part.codebook.detach().float().norm(dim=1)
        level = f", level {number}" if quantizer.num_quantizers > 1 else ""
        facts[f"atom norm (min, mean, max){level}"] = f"{norms.min():.3f}, {norms.mean():.3f}, {norms.max():.3f}"
    return facts | {"fitted on": codebook.backbone_name, "latent digest": codebook.latent_digest}


def _backbone(name: str) -> dict[str, Any]:
    from ddcm.backbone import load
    from ddcm.backbone.latent_diffusion import FrozenBackbone
    from ddcm.backbone.parts import count_heads

    backbone = load(name)
    spec = backbone.mel_spec
    facts = {
        "what": "backbone",
        "name": backbone.name,
        "latent digest": backbone.latent_digest,
        "digest": backbone.digest,
        "heads": backbone.heads,
        "scaling factor": backbone.scaling_factor,
        "latent": f"{backbone.latent_channels} channels, {spec.n_mels // 4} bands, "
        f"{spec.sample_rate / spec.hop / 4:g} frames a second",
        "mel": f"{spec.n_mels} bands to {spec.fmax:g} Hz, hop {spec.hop} at {spec.sample_rate} Hz",
        "timesteps": len(backbone.alphas_cumprod),
    }
    if not isinstance(backbone, FrozenBackbone):
        return facts
    counts = {part: backbone.parts.count(part) for part in PARTS}
    hub, original = (count_heads(backbone.parts.configs["unet"], heads) for heads in ("hub", "original"))
    layouts = f"{backbone.heads}: {hub}; original: {original}"
    facts |= {"heads": layouts} | {f"{part} parameters": f"{count:,}" for part, count in counts.items() if count}
    for what, groups in NEEDS.items():
        absent = [part for group in groups for part in group if not counts[part]]
        # In gigabytes, with the UNet in float32 or in half of it; the others are always in float32.
        full, half = (
            max(sum(counts[part] * (unet if part == "unet" else 4) for part in group) for group in groups) / 1e9
            for unet in (4, 2)
        )
        memory = f"{full:.2f} GB" + (f", {half:.2f} GB with --dtype float16 or bfloat16" if half < full else "")
        facts[what] = "not here: " + ", ".join(absent) if absent else memory
    return facts


def inspect(arguments: Namespace) -> int:
    """what a backbone, codebook or .ddcm file is, without running it

    ddcm inspect out/speech.ddcm
    ddcm inspect cvssp/audioldm2 --check_heads examples/melodic.flac
    """
    with progress_bar(leave=False):
        facts = collect_facts(arguments.name)
        if arguments.check_heads:
            from ddcm.backbone.head_layout import check_heads

            facts |= check_heads(arguments.name, arguments.check_heads)
    print_table([*facts.items()])
    return 0


VERBS: Verbs = {
    inspect: (
        flag("name", help="folder, hub name, .ckpt or .ddcm"),
        flag("--check_heads", type=str, help="an audio file: measure which head layout fits the weights"),
    )
}
