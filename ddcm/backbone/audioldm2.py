"""AudioLDM2's components from diffusers and transformers. Only this file and ``text.py`` know either library.

Hub repositories are read as published. Two of their habits break the stock calls with current versions: the language
model is saved as ``GPT2Model`` (see ``text.py``), and CLAP declares float64 (so every call states the dtype).
"""

import functools
import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ddcm.audio.files import resample
from ddcm.backbone.base import Condition
from ddcm.backbone.hifigan import HifiGan
from ddcm.backbone.parts import count_heads, text_widths
from ddcm.backbone.text import ModelFolder, encode_prompt, encode_t5
from ddcm.backbone.vae import Autoencoder
from ddcm.errors import UserError

CLASSES = {"vae": "AutoencoderKL", "unet": "AudioLDM2UNet2DConditionModel", "vocoder": "SpeechT5HifiGan"}
CONFIGS = {"vae": "config.json", "unet": "config.json", "vocoder": "config.json", "scheduler": "scheduler_config.json"}
COMPONENTS = (*CONFIGS, "text_encoder", "text_encoder_2", "projection_model", "language_model", "tokenizer",
              "tokenizer_2", "feature_extractor")  # fmt: skip
OWN: dict[str, type[torch.nn.Module]] = {"vae": Autoencoder, "vocoder": HifiGan}  # without diffusers: it loads slowly
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # of a VAE's attention
TEXT = ("text_encoder", "text_encoder_2", "projection_model", "language_model")


class FolderParts:
    """Components of a diffusers folder (a ``Parts``); ``heads`` as for ``FrozenBackbone``. Raises UserError: the folder
    is not an AudioLDM2."""

    def __init__(self, folder: ModelFolder, heads: str):
        self._folder, self._heads = folder, heads
        self.configs = {}
        for part, name in CONFIGS.items():
            file = folder.path(part) / name
            if not file.is_file():
                raise UserError(f"{folder.root} is not an AudioLDM2 folder: {part}/{name} is missing")
            self.configs[part] = json.loads(file.read_text())
        _check_configs(folder.root, self.configs)

    def make(self, part: str) -> torch.nn.Module:
        folder = self._folder.path(part)
        if part in OWN:
            return _read_module(OWN[part], self.configs[part], _find_weights(folder))
        from diffusers import AudioLDM2UNet2DConditionModel

        options: dict[str, Any] = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
        if self._heads == "original":
            options["attention_head_dim"] = count_heads(self.configs["unet"], "original")
        return AudioLDM2UNet2DConditionModel.from_pretrained(folder, **options)

    def copy_to(self, folder: Path) -> None:
        """Copy the files of every component; those of the hub are downloaded first."""
        for name in COMPONENTS:
            source = self._folder.path(name)
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("*.bin"))
        shutil.copy(self._folder.root / "model_index.json", folder)

    def digest(self, part: str) -> str:
        with open(_find_weights(self._folder.path(part)), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def count(self, part: str) -> int:
        from safetensors import safe_open

        # Text encoders have gigabytes: they are not downloaded to be counted.
        folder = self._folder.root / part if part in TEXT else self._folder.path(part)
        try:
            file = _find_weights(folder)
        except UserError:
            return 0
        if file.suffix != ".safetensors":
            return 0
        with safe_open(file, "pt") as tensors:  # reads the header alone
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118

    def encode(self, prompt: str, device: torch.device) -> Condition:
        return encode_prompt(self._folder, prompt, device)

    def encode_empty(self) -> tuple[torch.Tensor, torch.Tensor]:
        return encode_t5(self._folder, "", torch.device("cpu"))

    def extractor(self) -> dict[str, Any] | None:
        file = self._folder.path("feature_extractor") / "preprocessor_config.json"
        return json.loads(file.read_text()) if file.is_file() else None

    @torch.no_grad()
    def clap_scores(self, audios: Sequence[torch.Tensor], rate: int, prompt: str, device: torch.device) -> list[float]:
        model, tokenizer, extractor = self._clap
        tokens = tokenizer([prompt], return_tensors="pt", padding="max_length", truncation=True).to(device)
        text = model.to(device).get_text_features(**tokens).pooler_output
        own_rate, scores = extractor.sampling_rate, []
        for audio in audios:
            samples = resample(audio.float().cpu().numpy(), rate, own_rate)[: extractor.nb_max_samples]
            features = extractor(samples, sampling_rate=own_rate, return_tensors="pt").to(device)
            scores.append(float(torch.cosine_similarity(model.get_audio_features(**features).pooler_output, text)))
        return scores

    @functools.cached_property
    def _clap(self) -> tuple[Any, Any, Any]:
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

        model = ClapModel.from_pretrained(self._folder.path("text_encoder"), dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(self._folder.path("tokenizer"), trust_remote_code=False)
        return model, tokenizer, ClapFeatureExtractor.from_pretrained(self._folder.path("feature_extractor"))


def make_random(part: str, config: dict[str, Any], seed: int) -> torch.nn.Module:
    """A VAE, UNet or vocoder of this config with random weights that preserve variance."""
    import diffusers
    import transformers

    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    if part == "vocoder":
        module = transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**arguments))
    else:
        module = getattr(diffusers, CLASSES[part])(**arguments)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            if tensor.ndim > 1:
                tensor.normal_(generator=generator).div_(tensor[0].numel() ** 0.5)
            elif name.endswith("bias"):
                tensor.zero_()
    return module


def _read_module(kind: type[torch.nn.Module], config: dict[str, Any], file: Path) -> torch.nn.Module:
    """A module with the weights of a file, mapped from disk where they are float32. Raises UserError: the weights are
    of another network than the config says."""
    from safetensors.torch import load_file

    is_safe = file.suffix == ".safetensors"
    weights = load_file(file) if is_safe else torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    for old, new in OLD_NAMES.items():
        weights = {name.replace(f".attentions.0.{old}.", f".attentions.0.{new}."): w for name, w in weights.items()}
    with torch.device("meta"):
        module = kind(config)
    try:
        module.load_state_dict({name: weight.float() for name, weight in weights.items()}, assign=True)
    except RuntimeError as error:
        line = str(error).splitlines()[1].strip()
        raise UserError(f"{file} does not fit {file.with_name('config.json').name}: {line}") from error
    return module


def _find_weights(folder: Path) -> Path:
    for name in ("diffusion_pytorch_model", "model", "pytorch_model"):
        for suffix in (".safetensors", ".bin"):
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    raise UserError(f"no weights in {folder}: expected a .safetensors file")


def _check_configs(folder: Path, configs: dict[str, dict[str, Any]]) -> None:
    """Refuse another kind of checkpoint before anything is computed with it."""
    vae, unet, vocoder, scheduler = (configs[part] for part in CONFIGS)
    facts = [
        ("vae class", vae.get("_class_name"), CLASSES["vae"]),
        ("unet class", unet.get("_class_name"), CLASSES["unet"]),
        ("vocoder class", vocoder.get("architectures"), [CLASSES["vocoder"]]),
        ("number of text conditions", len(text_widths(unet)), 2),  # a text-to-speech checkpoint has one
        ("unet in_channels", unet.get("in_channels"), vae.get("latent_channels")),
        ("latent channels", vae.get("latent_channels"), 8),
        ("mel bands", vocoder.get("model_in_dim"), 64),
        ("prediction type", scheduler.get("prediction_type", "epsilon"), "epsilon"),
        ("beta schedule", scheduler.get("beta_schedule"), "scaled_linear"),
    ]
    for what, value, expected in facts:
        if value != expected:
            raise UserError(f"{folder} is no AudioLDM2 backbone: {what} is {value}, expected {expected}")
