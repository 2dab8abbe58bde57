"""The parts of an assembled folder as the stages have them: where a further training starts from.

Checkpoints of the stages hold optimizers and averages and are not published; the folder is. What is read here is in
fp32, as every training is, from the fp16 that was written.
"""

import json
from pathlib import Path

import torch
from diffusers import AudioLDM2UNet2DConditionModel, AutoencoderKL
from diffusers.pipelines.audioldm2 import AudioLDM2ProjectionModel
from torch import nn
from transformers import ClapModel, GPT2LMHeadModel, SpeechT5HifiGan, T5EncoderModel

FP32 = {"dtype": torch.float32}


def vae(folder: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)


def vocoder(folder: Path) -> SpeechT5HifiGan:
    return SpeechT5HifiGan.from_pretrained(folder / "vocoder", **FP32)


def clap(folder: Path) -> tuple[ClapModel, dict]:
    """CLAP, and the vocabularies of both tokenizers in the form of ``text.learn_pieces``."""
    return ClapModel.from_pretrained(folder / "text_encoder", **FP32), pieces(folder)


def pieces(folder: Path) -> dict:
    bpe, unigram = (
        json.loads((folder / name / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        for name in ("tokenizer", "tokenizer_2")
    )
    return {"bpe": bpe["vocab"], "merges": bpe["merges"], "unigram": unigram["vocab"]}


def parts(folder: Path) -> nn.ModuleDict:
    """What the unet stage trains: t5, projection, gpt2, unet."""
    small = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    return nn.ModuleDict(
        {
            "t5": T5EncoderModel.from_pretrained(folder / "text_encoder_2", **FP32),
            "projection": AudioLDM2ProjectionModel.from_pretrained(folder / "projection_model", **small),
            "gpt2": GPT2LMHeadModel.from_pretrained(folder / "language_model", **FP32),
            "unet": AudioLDM2UNet2DConditionModel.from_pretrained(folder / "unet", **small),
        }
    )


def training(folder: Path) -> dict[str, dict[str, float]]:
    """Steps and minutes that each stage had seen when the folder was written."""
    return json.loads((folder / "training.json").read_text())
