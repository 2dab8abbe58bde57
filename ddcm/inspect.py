"""What is this? Facts on a backbone or a codebook, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddcm.errors import UserError


def inspect(name: str) -> dict[str, Any]:
    """Facts to print, by what ``name`` is: a backbone (folder, hub name), a codebook (folder, ``.ckpt``) or a
    ``.ddcm`` file.

    Raises:
        UserError: it is none of them.
    """
    path = Path(name)
    if path.is_file() and (path.suffix == ".ddcm" or path.read_bytes()[:4] == b"ddcm"):
        return _stream(path)
    if name.endswith(".ckpt") or (path / "model.safetensors").is_file():
        return _codebook(name)
    if path.exists() and not (path / "model_index.json").is_file():
        raise UserError(f"{name} is neither a codebook (config.json and model.safetensors, or .ckpt) nor a backbone")
    return _backbone(name)


def _stream(path: Path) -> dict[str, Any]:
    """What a .ddcm file says of itself; loads neither torch nor a model."""
    from dataclasses import asdict

    from ddcm.codec.curve import lists
    from ddcm.codec.layout import verified, window_bits
    from ddcm.container import VERSION, read, unpack

    stream = unpack(read(path))
    placed, size, seconds = verified(stream), path.stat().st_size, stream.samples / stream.mel[0]
    facts = {"what": "ddcm file", "version": VERSION, "bytes": size, "seconds": f"{seconds:g}"}
    facts["kbps"] = f"{size / 125 / seconds:.3f}"
    facts |= {key: value for key, value in asdict(stream).items() if key not in ("payload", "schedule")}
    facts |= {"windows": len(placed.starts), "window frames": placed.size, "payload bytes": len(stream.payload)}
    if stream.schedule is not None:
        explicit = lists(stream.schedule)
        facts["timesteps"] = " ".join(map(str, explicit.timesteps))
        facts["atoms of each step"] = " ".join(map(str, explicit.atoms))
        facts["UNet calls of a window"] = len(explicit.timesteps) * (
            2 if stream.prompt and stream.guidance != 256 else 1
        )
        facts["bits of a window"] = window_bits(stream)
    return facts


def _codebook(name: str) -> dict[str, Any]:
    from ddcm.quantize.checkpoint import load_codebook
    from ddcm.quantize.single import SingleCodebook
    from ddcm.quantize.spec import to_spec

    codebook = load_codebook(name)
    quantizer = codebook.quantizer
    facts = {"what": "codebook", "quantizer": type(quantizer).__name__, **to_spec(quantizer)["config"]}
    for number, part in enumerate(part for part in quantizer.modules() if isinstance(part, SingleCodebook)):
        norms = part.codebook.detach().float().norm(dim=1)
        level = f", level {number}" if quantizer.levels > 1 else ""
        facts[f"atom norm (min, mean, max){level}"] = f"{norms.min():.3f}, {norms.mean():.3f}, {norms.max():.3f}"
    return facts | {"fitted on": codebook.backbone_name, "latent digest": codebook.latent_digest}


def _backbone(name: str) -> dict[str, Any]:
    from ddcm.backbone import load

    backbone = load(name)
    spec = backbone.mel_spec
    facts = {
        "what": "backbone",
        "name": backbone.name,
        "latent digest": backbone.latent_digest,
        "digest": backbone.digest,
        "heads": getattr(backbone, "heads", "its own"),
        "scaling factor": backbone.scaling_factor,
        "latent": f"{backbone.latent_channels} channels, {spec.n_mels // 4} bands, "
        f"{spec.sample_rate / spec.hop / 4:g} frames a second",
        "mel": f"{spec.n_mels} bands to {spec.fmax:g} Hz, hop {spec.hop} at {spec.sample_rate} Hz",
        "timesteps": len(backbone.alphas_cumprod),
    }
    for part in ("vae", "unet", "vocoder"):
        module = getattr(backbone, part, None)  # one's own backbone need not have them
        if module is not None:
            facts[f"{part} parameters"] = f"{sum(p.numel() for p in module.parameters()):,}"
    return facts


def check_heads(name: str, audio_path: str, seed: int = 0) -> dict[str, Any]:
    """Noise-prediction error of both head layouts on the user's own audio, at five timesteps, null condition.

    The layout that the weights were trained with predicts noise better; which one that is was never measured
    on the published weights.
    """
    from ddcm.audio import level, read_audio
    from ddcm.backbone import load
    from ddcm.mel import log_mel
    from ddcm.noise import latent_noise
    from ddcm.schedule import add_noise

    errors: dict[str, float] = {}
    for heads in ("hub", "original"):
        backbone = load(name, heads=heads)
        spec = backbone.mel_spec
        audio = level(read_audio(audio_path, spec.sample_rate))[0][: spec.sample_rate * 10]
        size = len(audio) // (4 * spec.hop) * 4 * spec.hop
        if size == 0:
            raise UserError(f"{audio_path}: shorter than one latent frame (40 ms)")
        z = backbone.encode(log_mel(audio[None, :size], spec))
        noise = latent_noise(seed, z.shape[2], z.shape[1], z.shape[3])[None].to(z)
        null = backbone.null_condition()
        squares = [
            (backbone.eps(add_noise(z, noise, float(backbone.alphas_cumprod[t])), t, null) - noise).square().mean()
            for t in (100, 300, 500, 700, 900)
        ]
        errors[heads] = float(sum(squares) / len(squares))
    better = min(errors, key=errors.__getitem__)
    return {f"noise error, heads {key}": f"{value:.5f}" for key, value in errors.items()} | {"better": better}
