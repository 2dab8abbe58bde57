"""A prompt as AudioLDM2's UNet reads it: CLAP and T5, projected to one width and continued by GPT-2 (arXiv 2308.05734).

The encoders are larger than everything after them. Each is loaded when it is needed and dropped before the next one, so
a prompt needs the memory of the largest, not of all. The caller keeps the result.
"""

import functools
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddcm.backbone.base import Condition
from ddcm.runtime.memory import trim_heap


@dataclass(frozen=True)
class ModelFolder:
    """A diffusers folder. ``download(component)`` is called before a component's files are read."""

    root: Path
    download: Callable[[str], object] = lambda component: None

    def path(self, component: str) -> Path:
        self.download(component)
        return self.root / component


@torch.no_grad()
def encode_prompt(folder: ModelFolder, prompt: str, device: torch.device) -> Condition:
    """The condition of one prompt, float32, equal to the stock pipeline's ``encode_prompt``. The stock pipeline pads
    CLAP's tokens to 512 and masks them. Unpadded tokens give the same."""
    trim_heap()
    sentence = _encode_clap(folder, prompt, device)
    text, mask = encode_t5(folder, prompt, device)
    return Condition(_generate(folder, sentence, text, mask), text, mask)


@torch.no_grad()
def encode_t5(folder: ModelFolder, prompt: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """T5's hidden states (1, n, D) and their mask (1, n)."""
    from transformers import T5EncoderModel

    tokens = _tokenize(folder, "tokenizer_2", prompt, device)
    encoder = _load(T5EncoderModel, folder.path("text_encoder_2"), device)
    return encoder(**tokens).last_hidden_state, tokens["attention_mask"]


def _encode_clap(folder: ModelFolder, prompt: str, device: torch.device) -> torch.Tensor:
    """CLAP's text embedding (1, 1, D) of norm 1. The CLAP audio encoder is not loaded."""
    from transformers import ClapTextModelWithProjection

    tokens = _tokenize(folder, "tokenizer", prompt, device)
    embedding = _load(ClapTextModelWithProjection, folder.path("text_encoder"), device)(**tokens).text_embeds
    return torch.nn.functional.normalize(embedding, dim=-1)[:, None]


def _generate(folder: ModelFolder, sentence: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(1, 8, D): the hidden states that GPT-2 generates after both texts, each fed back as the next input. Published
    repositories save ``GPT2Model``, re-saved ones ``GPT2LMHeadModel``; both load as the former."""
    from diffusers import AudioLDM2ProjectionModel
    from transformers import GPT2Model

    config = json.loads((folder.path("language_model") / "config.json").read_text())
    projection = AudioLDM2ProjectionModel.from_pretrained(
        folder.path("projection_model"), torch_dtype=torch.float32, low_cpu_mem_usage=False
    )
    projected = projection.to(sentence.device)(sentence, text, mask.new_ones(1, 1), mask)
    model = _load(GPT2Model, folder.path("language_model"), sentence.device)
    inputs, mask, cache, states = projected.hidden_states, projected.attention_mask, None, []
    for _ in range(config.get("max_new_tokens", 8)):
        output = model(inputs_embeds=inputs, attention_mask=mask, past_key_values=cache, use_cache=True)
        inputs, cache = output.last_hidden_state[:, -1:], output.past_key_values
        states.append(inputs)
        mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
    return torch.cat(states, dim=1)


def _tokenize(folder: ModelFolder, component: str, prompt: str, device: torch.device) -> dict[str, Any]:
    tokenizer = _load_tokenizer(folder.path(component))
    longest = tokenizer.model_max_length
    tokens = tokenizer([prompt], truncation=True, max_length=longest, return_tensors="pt")
    if component == "tokenizer_2" and len(tokenizer.tokenize(prompt)) >= longest:
        warnings.warn(f"only the first {longest} tokens of the prompt are read", stacklevel=2)
    return {name: tokens[name].to(device) for name in ("input_ids", "attention_mask")}


@functools.lru_cache(4)  # two of a backbone: small, and slow to read
def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _load(cls: Any, folder: Path, device: torch.device) -> Any:
    """A float32 model of transformers, without a progress bar or a report of unused weights (half of a CLAP)."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        return cls.from_pretrained(folder, dtype=torch.float32).eval().to(device)
    finally:
        logging.set_verbosity(verbosity)
