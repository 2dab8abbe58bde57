"""A random backbone with AudioLDM2's shapes and no weights to load: for tests, and to measure speed."""

from collections.abc import Sequence
from typing import Any

import torch

from ddcm.backbone.audioldm2 import make_random
from ddcm.backbone.base import Condition
from ddcm.backbone.latent_diffusion import FrozenBackbone
from ddcm.backbone.parts import digest_of, text_widths

CONFIGS = {
    "vae": dict(
        in_channels=1, out_channels=1, latent_channels=8, block_out_channels=[8, 8, 8], layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
        norm_num_groups=4, sample_size=1024, scaling_factor=0.8, mid_block_add_attention=False,
    ),
    "unet": dict(
        in_channels=8, out_channels=8, block_out_channels=[8, 8, 16, 16], layers_per_block=1,
        down_block_types=["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 3,
        up_block_types=["CrossAttnUpBlock2D"] * 3 + ["UpBlock2D"],
        cross_attention_dim=[[None, 16, 24]] * 4, attention_head_dim=2, norm_num_groups=4, sample_size=256,
    ),
    "vocoder": dict(
        model_in_dim=64, sampling_rate=16000, upsample_initial_channel=32, upsample_rates=[5, 4, 2, 2, 2],
        upsample_kernel_sizes=[16, 16, 8, 4, 4], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]],
        normalize_before=False,
    ),
    "scheduler": dict(
        num_train_timesteps=1000, beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear",
        prediction_type="epsilon",
    ),
}  # fmt: skip


class RandomParts:
    """Components with random weights of given configs (a ``Parts``). Conditions and CLAP scores follow from prompts."""

    def __init__(self, configs: dict[str, dict[str, Any]], seed: int):
        self.configs, self._seed = configs, seed

    def make(self, part: str) -> torch.nn.Module:
        return make_random(part, self.configs[part], self._seed)

    def digest(self, part: str) -> str:
        return digest_of("random", self._seed, self.configs[part])

    def count(self, part: str) -> int:
        return sum(p.numel() for p in self.make(part).parameters()) if part in self.configs else 0

    def encode(self, prompt: str, device: torch.device | None = None) -> Condition:
        generator = torch.Generator().manual_seed(int(digest_of(prompt), 16) % 2**63)
        generated, text = text_widths(self.configs["unet"])
        length = 1 + len(prompt.split())
        return Condition(
            torch.randn(1, 8, generated, generator=generator),
            torch.randn(1, length, text, generator=generator),
            torch.ones(1, length, dtype=torch.long),
        )

    def encode_empty(self) -> tuple[torch.Tensor, torch.Tensor]:
        empty = self.encode("")
        return empty.text, empty.mask

    def extractor(self) -> None:
        return None

    def clap_scores(self, audios: Sequence[torch.Tensor], rate: int, prompt: str, device: torch.device) -> list[float]:
        pitch_hz = 100 + int(digest_of(prompt), 16) % 1000  # each prompt prefers another pitch
        spectra = [torch.fft.rfft(audio.float().cpu(), rate).abs() for audio in audios]
        return [float(spectrum[pitch_hz] / spectrum.norm().clamp(min=1e-9)) for spectrum in spectra]


def tiny_backbone(seed: int = 0, **options) -> FrozenBackbone:
    """Random weights from ``seed``; ``options`` as for ``FrozenBackbone`` (device, dtype, null, ...)."""
    return FrozenBackbone(RandomParts(CONFIGS, seed), name=f"tiny-{seed}", **options)
