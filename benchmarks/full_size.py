"""Write an AudioLDM2 of the published size with random weights: a diffusers folder to measure and to test with.

    python -m benchmarks.full_size runs/audioldm2 --variant audioldm2 --dtype float32
    python -m benchmarks.full_size runs/large --variant audioldm2-large --dtype float16 --layout hub

Speed and memory do not depend on the values of weights; the audio does, and is noise. The stock pipeline saves the
folder. ``--layout hub`` imitates the published repositories: ``GPT2Model`` as the class of the language model, older
names of the tokenizers, and a CLAP that declares float64. ``small`` has every part at a size for tests.
"""

import argparse
import copy
import json
from pathlib import Path

import torch

from ddcm.backbone.tiny import RandomParts
from ddcm.runtime.files import write_atomically

VAE = dict(
    in_channels=1, out_channels=1, latent_channels=8, block_out_channels=[128, 256, 512], layers_per_block=2,
    down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3, norm_num_groups=32,
    sample_size=1024, scaling_factor=0.4110932946205139, force_upcast=True,
)  # fmt: skip
UNET = dict(
    in_channels=8, out_channels=8, block_out_channels=[128, 256, 384, 640], layers_per_block=2,
    down_block_types=["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 3,
    up_block_types=["CrossAttnUpBlock2D"] * 3 + ["UpBlock2D"], cross_attention_dim=[[None, 768, 1024]] * 4,
    attention_head_dim=8, transformer_layers_per_block=1, norm_num_groups=32, sample_size=256,
)  # fmt: skip
VOCODER = dict(
    model_in_dim=64, sampling_rate=16000, upsample_initial_channel=1024, upsample_rates=[5, 4, 2, 2, 2],
    upsample_kernel_sizes=[16, 16, 8, 4, 4], resblock_kernel_sizes=[3, 7, 11],
    resblock_dilation_sizes=[[1, 3, 5]] * 3, normalize_before=False, leaky_relu_slope=0.1,
)  # fmt: skip
SCHEDULER = dict(
    num_train_timesteps=1000, beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False,
    set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon",
)  # fmt: skip
TEXT = dict(
    clap=dict(
        text_config=dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
                         vocab_size=50265, max_position_embeddings=514),
        audio_config=dict(depths=[2, 2, 12, 2], num_attention_heads=[4, 8, 16, 32], hidden_size=1024,
                          patch_embeds_hidden_size=128, num_mel_bins=64, spec_size=256, window_size=8),
        projection_dim=512,
    ),
    t5=dict(d_model=1024, d_kv=64, d_ff=2816, num_layers=24, num_heads=16, vocab_size=32128,
            feed_forward_proj="gated-gelu", is_encoder_decoder=False),
    gpt2=dict(n_layer=12, n_embd=768, n_head=12, n_positions=1024),
)  # fmt: skip
LENGTHS = (512, 128)  # tokens to which CLAP's tokenizer pads, and at which T5's cuts


def sizes(variant: str) -> tuple[dict, dict]:
    """Configs of vae, unet, vocoder and scheduler, and of the text side."""
    parts = copy.deepcopy({"vae": VAE, "unet": UNET, "vocoder": VOCODER, "scheduler": SCHEDULER})
    text = copy.deepcopy(TEXT)
    if variant == "audioldm2-large":
        parts["unet"] |= dict(cross_attention_dim=[[None, 768, 1024, None]] * 4, transformer_layers_per_block=2)
    if variant == "small":
        parts["vae"] |= dict(block_out_channels=[16, 16, 16], norm_num_groups=4)
        parts["unet"] |= dict(block_out_channels=[32, 32, 64, 64], layers_per_block=1, norm_num_groups=8,
                              cross_attention_dim=[[None, 48, 64]] * 4)  # fmt: skip
        parts["vocoder"] |= dict(upsample_initial_channel=64)
        text["clap"]["text_config"] |= dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                            intermediate_size=64)  # fmt: skip
        text["clap"]["audio_config"] |= dict(depths=[1, 1], num_attention_heads=[2, 4], hidden_size=64,
                                             num_hidden_layers=2, patch_embeds_hidden_size=32)  # fmt: skip
        text["clap"] |= dict(projection_dim=32)
        text["t5"] |= dict(d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4)
        text["gpt2"] |= dict(n_layer=2, n_embd=48, n_head=4)
    return parts, text


VARIANTS = ("audioldm2", "audioldm2-music", "audioldm2-large", "small")


def pipeline(variant: str, dtype: torch.dtype, seed: int = 0):
    """The stock pipeline with random weights, in eval mode. audioldm2 and -music differ in weights alone."""
    import transformers
    from diffusers import AudioLDM2Pipeline, DDIMScheduler
    from diffusers.pipelines.audioldm2 import AudioLDM2ProjectionModel

    from pocket.text import captions, feature_extractor, learn_pieces, tokenizers

    configs, text = sizes(variant)
    parts, pieces = RandomParts(configs, seed), learn_pieces(captions())
    text["clap"]["text_config"] |= dict(pad_token_id=1, bos_token_id=0, eos_token_id=2)
    if variant == "small":  # vocabularies as small as the tokenizers; otherwise as large as the published ones
        text["clap"]["text_config"]["vocab_size"] = len(pieces["bpe"])
        text["t5"]["vocab_size"], text["gpt2"]["vocab_size"] = len(pieces["unigram"]), 8
        text["gpt2"] |= dict(bos_token_id=0, eos_token_id=0)
    gpt2 = transformers.GPT2Config(**text["gpt2"])
    gpt2.max_new_tokens = 8  # the stock pipeline reads it here
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        modules = {
            "text_encoder": transformers.ClapModel(transformers.ClapConfig(**text["clap"])),
            "text_encoder_2": transformers.T5EncoderModel(transformers.T5Config(**text["t5"])),
            "language_model": transformers.GPT2LMHeadModel(gpt2),
            "projection_model": AudioLDM2ProjectionModel(
                text["clap"]["projection_dim"], text["t5"]["d_model"], text["gpt2"]["n_embd"]
            ),
        }
    modules |= {part: parts.make(part) for part in ("vae", "unet", "vocoder")}
    for module in modules.values():
        torch.nn.Module.to(module, dtype).eval()
    text_tokenizers = dict(zip(("tokenizer", "tokenizer_2"), tokenizers(pieces), strict=True))
    for tokenizer, length in zip(text_tokenizers.values(), LENGTHS, strict=True):
        tokenizer.model_max_length = length
    return AudioLDM2Pipeline(
        **modules,
        **text_tokenizers,
        feature_extractor=feature_extractor(),
        scheduler=DDIMScheduler(**configs["scheduler"]),
    )


def write(out: Path, variant: str = "audioldm2", dtype: torch.dtype = torch.float32, layout: str = "resaved") -> None:
    """Write a folder. ``layout``: ``hub`` as published, ``resaved`` as current versions write it."""
    pipe = pipeline(variant, dtype)
    if layout == "hub":
        pipe.register_modules(language_model=pipe.language_model.transformer)
    with write_atomically(out) as temporary:
        pipe.save_pretrained(temporary)
        if layout == "hub":
            _make_like_hub(temporary)


def _make_like_hub(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index |= {name: ["transformers", kind] for name, kind in
              (("tokenizer", "RobertaTokenizerFast"), ("tokenizer_2", "T5TokenizerFast"))}  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    file = folder / "text_encoder" / "config.json"
    config = json.loads(file.read_text())
    config.pop("dtype", None)
    file.write_text(json.dumps(config | {"torch_dtype": "float64"}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--variant", default="audioldm2", choices=VARIANTS)
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"), help="of the files")
    parser.add_argument("--layout", default="resaved", choices=("hub", "resaved"))
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"{args.out} exists; remove it or name another folder")
    write(args.out, args.variant, getattr(torch, args.dtype), args.layout)
    print(f"{args.out}: {sum(path.stat().st_size for path in args.out.rglob('*') if path.is_file()) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
