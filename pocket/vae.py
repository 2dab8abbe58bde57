"""Stage ``vae``: log-mel (B, 1, T, 64) <-> latent (B, 8, T/4, 16)."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch
from diffusers import AutoencoderKL

from ddcm.mel import LN_TO_DB, log_mel
from ddcm.quantize import HardQuantizer
from pocket import shipped

CONFIG = dict(
    in_channels=1,
    out_channels=1,
    latent_channels=8,
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    block_out_channels=(32, 64, 128),
    layers_per_block=1,
    norm_num_groups=8,
    sample_size=1024,
)


class VAEStage(L.LightningModule):
    """L1 + KL, with part of every batch decoded from codes.

    A KL term alone spreads the latent evenly, and 1024 atoms then cover eight dimensions badly. Some of the
    clips in a batch are decoded from their nearest atoms of a codebook that is learned beside (EMA), so the
    encoder puts what matters most where few atoms can tell it, and the decoder learns to live with them.
    The codebook itself is thrown away: users fit their own on the frozen result.
    """

    frames, batch_size, fill, learning_rate = 128, 8, True, 2e-3

    def __init__(self, kl_weight: float = 1e-2, quantised_share: float = 0.25, quantise_from: int = 300):
        super().__init__()
        self.save_hyperparameters()
        self.vae = AutoencoderKL(**CONFIG)
        torch.nn.init.constant_(self.vae.decoder.conv_out.bias, -5.0)  # the mean log-mel: minutes saved
        self.quantizer = HardQuantizer(learn="ema", decay=0.98)

    def start_from(self, folder: Path) -> None:
        self.vae.load_state_dict(shipped.vae(folder).state_dict())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.vae.parameters(), lr=self.learning_rate, betas=(0.9, 0.95), weight_decay=1e-2)

    def training_step(self, batch, batch_idx):
        mel = log_mel(batch["audio"])
        posterior = self.vae.encode(mel).latent_dist
        z = posterior.sample()
        logs = {}
        if self.global_step == self.hparams.quantise_from:
            self.quantizer.initialise(posterior.mean.detach().movedim(1, -1).reshape(-1, 8).float())
        commitment, count = 0.0, round(len(z) * self.hparams.quantised_share)
        if count and self.global_step >= self.hparams.quantise_from:
            quantised = self.quantizer(posterior.mean[:count])
            z = torch.cat([quantised.z, z[count:]])
            commitment = quantised.losses["commitment"]
            logs |= {"perplexity": quantised.perplexity, "commitment": commitment}
        error = (self.vae.decode(z).sample - mel).abs().float()
        kl = posterior.kl().mean() / mel[0].numel()  # nats per mel value, the unit of the error
        loss = error.mean() + self.hparams.kl_weight * kl + 0.25 * commitment
        self.log_dict(logs | {"l1": error.mean(), "kl": kl}, prog_bar=True)
        return loss

    def validation_step(self, clip, batch_idx):
        mel = log_mel(clip["audio"])
        z = self.vae.encode(mel).latent_dist.mode()
        for name, latent in (("val_mel_db", z), ("val_quantised_mel_db", self.quantizer(z).z)):
            error = (self.vae.decode(latent).sample.float() - mel).abs().mean() * LN_TO_DB
            self.log(name, error, batch_size=1, prog_bar=True)


def load_vae(runs: Path, start: Path | None = None) -> AutoencoderKL:
    """The trained VAE of a runs folder, or else that of an assembled folder ``start``; frozen, fp32."""
    if start is not None and not (runs / "vae" / "last.ckpt").exists():
        return shipped.vae(start).eval().requires_grad_(False)
    state = torch.load(runs / "vae" / "last.ckpt", weights_only=True, map_location="cpu")["state_dict"]
    vae = AutoencoderKL(**CONFIG)
    vae.load_state_dict({name.removeprefix("vae."): x for name, x in state.items() if name.startswith("vae.")})
    return vae.eval().requires_grad_(False)
