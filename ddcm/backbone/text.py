"""A prompt as AudioLDM2's UNet reads it: CLAP and T5, brought to one width and continued by GPT-2 (arXiv 2308.05734).

The encoders are larger than everything that comes after them. Each is loaded when its turn comes and forgotten before
the next one, so that a prompt costs the memory of the largest, not of all; what they read is kept by the caller.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ddcm.backbone.base import Condition
from ddcm.runtime.memory import trim_heap

Fetch = Callable[[str], None]
"""Called with a component's name before its files are read."""


@torch.no_grad()
def encode_prompt(folder: Path, fetch: Fetch, prompt: str, device: torch.device) -> Condition:
    """What the stock pipeline's ``encode_prompt`` gives for one prompt, float32.

    It fills CLAP's text up to 512 tokens and masks them: as many as there are give the same.
    """
    trim_heap()
    heard = _clap(folder, fetch, prompt, device)
    text, mask = encode_t5(folder, fetch, prompt, device)
    return Condition(_continued(folder, fetch, heard, text, mask), text, mask)


def encode_t5(folder: Path, fetch: Fetch, prompt: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """T5's text (1, n, D) and its mask (1, n)."""
    from transformers import T5EncoderModel

    tokens = _tokens(folder, fetch, "tokenizer_2", prompt, device)
    fetch("text_encoder_2")
    encoder = _loaded(T5EncoderModel, folder / "text_encoder_2", device)
    with torch.no_grad():
        return encoder(**tokens).last_hidden_state, tokens["attention_mask"]


def _clap(folder: Path, fetch: Fetch, prompt: str, device: torch.device) -> torch.Tensor:
    """The sentence as CLAP places it: (1, 1, D) of norm 1. Its other half, which listens, is not loaded."""
    from transformers import ClapTextModelWithProjection

    tokens = _tokens(folder, fetch, "tokenizer", prompt, device)
    fetch("text_encoder")
    placed = _loaded(ClapTextModelWithProjection, folder / "text_encoder", device)(**tokens).text_embeds
    return torch.nn.functional.normalize(placed, dim=-1)[:, None]


def _continued(folder: Path, fetch: Fetch, heard: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(1, 8, D): the states that GPT-2 adds after both texts, each fed back as the next input.

    Published repositories save ``GPT2Model``, re-saved ones ``GPT2LMHeadModel``; both load as the former.
    """
    from diffusers import AudioLDM2ProjectionModel
    from transformers import GPT2Model

    for part in ("projection_model", "language_model"):
        fetch(part)
    count = json.loads((folder / "language_model" / "config.json").read_text()).get("max_new_tokens", 8)
    projection = AudioLDM2ProjectionModel.from_pretrained(
        folder / "projection_model", torch_dtype=torch.float32, low_cpu_mem_usage=False
    )
    projected = projection.to(heard.device)(heard, text, mask.new_ones(1, 1), mask)
    model = _loaded(GPT2Model, folder / "language_model", heard.device)
    entering, mask, past, made = projected.hidden_states, projected.attention_mask, None, []
    for _ in range(count):
        said = model(inputs_embeds=entering, attention_mask=mask, past_key_values=past, use_cache=True)
        entering, past = said.last_hidden_state[:, -1:], said.past_key_values
        made.append(entering)
        mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
    return torch.cat(made, dim=1)


def _tokens(folder: Path, fetch: Fetch, part: str, prompt: str, device: torch.device) -> dict[str, Any]:
    fetch(part)
    tokenizer = _tokenizer(folder / part)
    given = tokenizer([prompt], truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt")
    if part == "tokenizer_2" and len(tokenizer.tokenize(prompt)) >= tokenizer.model_max_length:
        warnings.warn(f"only the first {tokenizer.model_max_length} tokens of the prompt are read", stacklevel=2)
    return {name: given[name].to(device) for name in ("input_ids", "attention_mask")}


@functools.lru_cache(4)  # two of a backbone: small, and slow to read
def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _loaded(kind: Any, folder: Path, device: torch.device) -> Any:
    """A model of transformers, float32, without a bar and without a list of what else its file has: half of a CLAP."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        return kind.from_pretrained(folder, dtype=torch.float32).eval().to(device)
    finally:
        logging.set_verbosity(before)
