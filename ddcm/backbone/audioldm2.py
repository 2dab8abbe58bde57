"""Parts of AudioLDM2 from diffusers and transformers: with ``text.py`` the only file that knows either.

Hub repositories are used as published. Two of their habits break the stock calls with current versions: the language
model is saved as ``GPT2Model`` (see ``text.py``), and CLAP declares float64 (so the dtype is always said).
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ddcm.audio.files import resample
from ddcm.backbone.base import Condition
from ddcm.backbone.latent_diffusion import Parts, digest_of, head_counts, widths
from ddcm.backbone.text import Fetch, encode_prompt, encode_t5
from ddcm.errors import UserError

CLASSES = {"vae": "AutoencoderKL", "unet": "AudioLDM2UNet2DConditionModel", "vocoder": "SpeechT5HifiGan"}
TEXT = ("text_encoder", "text_encoder_2", "projection_model", "language_model")


def from_folder(folder: Path, fetch: Fetch, heads: str) -> Parts:
    """Parts of a diffusers folder. ``fetch(component)`` is called before a component's files are read."""
    configs = {}
    for part in ("vae", "unet", "vocoder", "scheduler"):
        fetch(part)
        file = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        if not file.is_file():
            raise UserError(f"{folder} is not an AudioLDM2 folder: {file.relative_to(folder)} is missing")
        configs[part] = json.loads(file.read_text())
    _check(folder, configs)

    def make(part: str) -> torch.nn.Module:
        import diffusers
        import transformers

        fetch(part)
        if part == "vocoder":
            transformers.utils.logging.disable_progress_bar()  # a bar for half a second of loading
            return transformers.SpeechT5HifiGan.from_pretrained(folder / part, dtype=torch.float32)
        cls = getattr(diffusers, CLASSES[part])
        # diffusers calls the number of heads their dimension.
        changed = part == "unet" and heads == "original"
        extra = {"attention_head_dim": head_counts(configs[part], heads)} if changed else {}
        return cls.from_pretrained(folder, subfolder=part, torch_dtype=torch.float32, low_cpu_mem_usage=False, **extra)

    def digest(part: str) -> str:
        fetch(part)
        file = _weights(folder / part)
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def count(part: str) -> int:
        if part not in TEXT:  # gigabytes are not downloaded to be counted
            fetch(part)
        try:
            file = _weights(folder / part)
        except UserError:
            return 0
        return _count(file) if file.suffix == ".safetensors" else 0

    def encode_empty() -> tuple[torch.Tensor, torch.Tensor]:
        return encode_t5(folder, fetch, "", torch.device("cpu"))

    @functools.cache
    def extractor() -> dict[str, Any] | None:
        fetch("feature_extractor")
        file = folder / "feature_extractor" / "preprocessor_config.json"
        return json.loads(file.read_text()) if file.is_file() else None

    @functools.cache
    def clap() -> tuple[Any, Any, Any]:
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

        for part in ("text_encoder", "tokenizer", "feature_extractor"):
            fetch(part)
        model = ClapModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        return model, tokenizer, ClapFeatureExtractor.from_pretrained(folder / "feature_extractor")

    def clap_scores(audios: Sequence[torch.Tensor], sample_rate: int, prompt: str) -> list[float]:
        return _clap_scores(*clap(), audios, sample_rate, prompt)

    encode = functools.partial(encode_prompt, folder, fetch)
    return Parts(configs, make, digest, count, encode, encode_empty, extractor, clap_scores)


@torch.no_grad()
def _clap_scores(model, tokenizer, features, audios: Sequence[torch.Tensor], sample_rate: int, prompt: str):
    tokens = tokenizer([prompt], return_tensors="pt", padding="max_length", truncation=True)
    read = model.get_text_features(**tokens).pooler_output
    scores = []
    for audio in audios:
        heard = resample(audio.float().cpu().numpy(), sample_rate, features.sampling_rate)[: features.nb_max_samples]
        given = features(heard, sampling_rate=features.sampling_rate, return_tensors="pt")
        heard = model.get_audio_features(**given).pooler_output
        scores.append(float(torch.cosine_similarity(heard, read)))
    return scores


def _weights(folder: Path) -> Path:
    for name in ("diffusion_pytorch_model", "model", "pytorch_model"):
        for suffix in (".safetensors", ".bin"):
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    raise UserError(f"no weights in {folder}: expected a .safetensors file")


def _count(file: Path) -> int:
    """Numbers in a safetensors file, from its header."""
    with open(file, "rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _check(folder: Path, configs: dict[str, dict[str, Any]]) -> None:
    """A wrong checkpoint is named before anything is computed with it."""
    vae, unet, vocoder = configs["vae"], configs["unet"], configs["vocoder"]
    facts = [
        ("vae class", vae.get("_class_name"), CLASSES["vae"]),
        ("unet class", unet.get("_class_name"), CLASSES["unet"]),
        ("vocoder class", vocoder.get("architectures"), [CLASSES["vocoder"]]),
        ("number of text conditions", len(widths(unet)), 2),  # a text-to-speech checkpoint has one
        ("unet in_channels", unet.get("in_channels"), vae.get("latent_channels")),
        ("latent channels", vae.get("latent_channels"), 8),
        ("mel bands", vocoder.get("model_in_dim"), 64),
        ("prediction type", configs["scheduler"].get("prediction_type", "epsilon"), "epsilon"),
        ("beta schedule", configs["scheduler"].get("beta_schedule"), "scaled_linear"),
    ]
    for what, found, expected in facts:
        if found != expected:
            raise UserError(f"{folder} is no AudioLDM2 backbone: {what} is {found}, expected {expected}")


def from_configs(configs: dict[str, dict[str, Any]], seed: int) -> Parts:
    """Random weights in given shapes: for tests and for measuring speed, which does not depend on values."""

    def make(part: str) -> torch.nn.Module:
        import diffusers
        import transformers

        arguments = {key: value for key, value in configs[part].items() if not key.startswith("_")}
        if part == "vocoder":
            module = transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**arguments))
        else:
            module = getattr(diffusers, CLASSES[part])(**arguments)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, tensor in module.named_parameters():
                if tensor.ndim > 1:  # variance-preserving, so that outputs have a sensible size
                    tensor.normal_(generator=generator).div_(tensor[0].numel() ** 0.5)
                elif name.endswith("bias"):
                    tensor.zero_()
        return module

    def digest(part: str) -> str:
        return digest_of("random", seed, configs[part])

    def encode(prompt: str, device: torch.device | None = None) -> Condition:
        generator = torch.Generator().manual_seed(int(digest_of(prompt), 16) % 2**63)
        generated, text = widths(configs["unet"])
        length = 1 + len(prompt.split())
        return Condition(
            torch.randn(1, 8, generated, generator=generator),
            torch.randn(1, length, text, generator=generator),
            torch.ones(1, length, dtype=torch.long),
        )

    def encode_empty() -> tuple[torch.Tensor, torch.Tensor]:
        empty = encode("")
        return empty.text, empty.mask

    def clap_scores(audios: Sequence[torch.Tensor], sample_rate: int, prompt: str) -> list[float]:
        likes = 100 + int(digest_of(prompt), 16) % 1000  # of Hz: each prompt prefers another pitch
        spectra = [torch.fft.rfft(audio.float().cpu(), sample_rate).abs() for audio in audios]
        return [float(spectrum[likes] / spectrum.norm().clamp(min=1e-9)) for spectrum in spectra]

    def count(part: str) -> int:
        return sum(p.numel() for p in make(part).parameters()) if part in configs else 0

    return Parts(configs, make, digest, count, encode, encode_empty, lambda: None, clap_scores)
