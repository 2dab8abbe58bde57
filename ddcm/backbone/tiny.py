"""A random backbone with AudioLDM2's shapes and no weights to load: for tests."""

from __future__ import annotations

from ddcm.backbone.audioldm2 import from_configs
from ddcm.backbone.latent_diffusion import FrozenBackbone

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


def tiny_backbone(seed: int = 0, **options) -> FrozenBackbone:
    """Random weights from ``seed``; ``options`` as for ``FrozenBackbone`` (device, dtype, null, ...)."""
    return FrozenBackbone(from_configs(CONFIGS, seed), name=f"tiny-{seed}", **options)
