"""The text side: tokenizers learned from the captions, and AudioLDM2's four text models at width 128.

A caption becomes two conditions of the UNet: T5's states (B, L, 128), and eight states that GPT-2 generates
(B, 8, 128) from the CLAP and T5 states behind a projection.
"""

import json
import string

import torch
from diffusers.pipelines.audioldm2 import AudioLDM2ProjectionModel
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from pocket.corpus import pool

WIDTH = 128
MAX_TOKENS = 64  # of a caption, in either tokenizer; what is longer is cut
NEW_TOKENS = 8  # states that GPT-2 generates
BPE_SIZE, UNIGRAM_SIZE = 4000, 3000


def captions() -> list[str]:
    return sorted({row["caption"] for row in pool()})


def learn_pieces(captions: list[str]) -> dict:
    """The vocabularies as plain lists, so that a checkpoint can hold them: what a model has learned on its
    token ids must outlive a change of the pool.
    """
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # RoBERTa's ids 0 to 4
    bpe.train_from_iterator(captions, BPE_SIZE, special_tokens=special, show_progress=False)
    bpe = Tokenizer.from_str(bpe._tokenizer.to_str())
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=UNIGRAM_SIZE,
        special_tokens=["<pad>", "</s>", "<unk>"],  # T5's ids 0 to 2
        unk_token="<unk>",
        initial_alphabet=list(string.digits + string.ascii_letters + string.punctuation + "▁"),
        show_progress=False,
    )
    unigram.train_from_iterator(captions, trainer)
    bpe, unigram = json.loads(bpe.to_str())["model"], json.loads(unigram.to_str())["model"]
    return {"bpe": bpe["vocab"], "merges": bpe["merges"], "unigram": unigram["vocab"]}


def tokenizers(pieces: dict) -> tuple[RobertaTokenizer, T5Tokenizer]:
    """CLAP's and T5's. Without ``model_max_length`` the stock pipeline's padding overflows."""
    merges = [tuple(pair) for pair in pieces["merges"]]
    unigram = [(piece, score) for piece, score in pieces["unigram"]]
    return (
        RobertaTokenizer(vocab=dict(pieces["bpe"]), merges=merges, model_max_length=MAX_TOKENS),
        T5Tokenizer(vocab=unigram, extra_ids=0, model_max_length=MAX_TOKENS),
    )


def feature_extractor() -> ClapFeatureExtractor:
    """AudioLDM2's own settings."""
    return ClapFeatureExtractor(
        feature_size=64,
        sampling_rate=48000,
        hop_length=480,
        max_length_s=10,
        fft_window_size=1024,
        frequency_min=50,
        frequency_max=14000,
        truncation="rand_trunc",
        padding="repeatpad",
    )


def clap(vocab_size: int = BPE_SIZE) -> ClapModel:
    """Text tower 2 x 128, audio tower an HTSAT Swin of three stages, joint space of 128.

    The extractor's 1001 frames fit a picture of 4 x 256 frames (``spec_size`` 256 over 64 bands); patches of
    8 instead of 4 make a quarter of the tokens.
    """
    return ClapModel(
        ClapConfig(
            text_config=dict(
                vocab_size=vocab_size,
                hidden_size=WIDTH,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=4 * WIDTH,
                max_position_embeddings=MAX_TOKENS + 2,
            ),
            audio_config=dict(
                window_size=8,
                num_mel_bins=64,
                spec_size=256,
                patch_size=8,
                patch_stride=[8, 8],
                depths=[2, 2, 2],
                num_attention_heads=[2, 4, 8],
                patch_embeds_hidden_size=32,
                hidden_size=128,
                num_hidden_layers=3,
                hidden_dropout_prob=0.0,
            ),
            projection_dim=WIDTH,
        )
    )


def language(vocab_size: int = UNIGRAM_SIZE) -> nn.ModuleDict:
    """The text models that are trained with the UNet: t5, projection, gpt2. No dropout: captions are few, but
    the same caption must always give the same condition.
    """
    t5 = T5Config(
        vocab_size=vocab_size,
        d_model=WIDTH,
        d_kv=32,
        d_ff=2 * WIDTH,
        num_layers=3,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        is_encoder_decoder=False,
    )
    gpt2 = GPT2Config(
        vocab_size=8,  # it only ever continues embeddings
        bos_token_id=0,
        eos_token_id=0,
        n_positions=2 * MAX_TOKENS,
        n_embd=WIDTH,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    gpt2.max_new_tokens = NEW_TOKENS  # where the stock pipeline looks for it
    return nn.ModuleDict(
        {
            "t5": T5EncoderModel(t5),
            "projection": AudioLDM2ProjectionModel(WIDTH, WIDTH, WIDTH),
            "gpt2": GPT2LMHeadModel(gpt2),
        }
    )


def clap_tokens(tokenizer: RobertaTokenizer, captions: list[str]) -> dict[str, torch.Tensor]:
    """Always padded to the full length, as the stock pipeline does it."""
    tokens = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}


def encode(
    parts: nn.ModuleDict, tokenizer: T5Tokenizer, clap_embeds: torch.Tensor, captions: list[str]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Captions and their CLAP embeddings (B, 128) -> generated (B, 8, 128), states (B, L, 128), mask (B, L).

    Every caption gets what the stock pipeline gives it alone. A batch in the stock pipeline does not: there
    GPT-2 continues behind the padding. Here the padding is moved to the front, where the attention mask hides
    it and the positions do not count it.
    """
    device = clap_embeds.device
    tokens = tokenizer(captions, padding=True, max_length=MAX_TOKENS, truncation=True, return_tensors="pt").to(device)
    states, mask = parts["t5"](tokens.input_ids, attention_mask=tokens.attention_mask)[0], tokens.attention_mask
    projection = parts["projection"]
    x = projection(
        hidden_states=clap_embeds[:, None],
        hidden_states_1=states,
        attention_mask=mask.new_ones(len(mask), 1),
        attention_mask_1=mask,
    )
    # A stable sort by the mask brings the hidden slots to the front and keeps the order of the others.
    order = x.attention_mask.sort(dim=1, stable=True).indices
    embeds = x.hidden_states.gather(1, order[..., None].expand_as(x.hidden_states))
    attend = x.attention_mask.gather(1, order)
    past, generated = None, []
    for _ in range(NEW_TOKENS):
        positions = (attend.cumsum(1) - 1).clamp(min=0)[:, -embeds.shape[1] :]
        out = parts["gpt2"].transformer(
            inputs_embeds=embeds, attention_mask=attend, position_ids=positions, past_key_values=past, use_cache=True
        )
        past, embeds = out.past_key_values, out.last_hidden_state[:, -1:]
        attend = torch.cat([attend, attend.new_ones(len(attend), 1)], dim=1)
        generated.append(embeds)
    return torch.cat(generated, dim=1), states, mask
