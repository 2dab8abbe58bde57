"""Stage ``vae``: log-mel (B, 1, T, 64) <-> latent (B, 8, T/4, 16)."""

from pathlib import Path

import lightning as L
import torch
from diffusers import AutoencoderKL

from ddcm.audio.mel import LN_TO_DB, log_mel
from ddcm.errors import UserError
from ddcm.quantize import HardQuantizer
from pocket import checkpoints, linear, pretrained

LATENT_CHANNELS = 8


def untrained(width: float = 32) -> AutoencoderKL:
    """Its blocks have one, two and four times ``width`` channels, a multiple of 4."""
    width = int(width)
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        latent_channels=LATENT_CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(width, 2 * width, 4 * width),
        layers_per_block=1,
        norm_num_groups=width // 4,
        sample_size=1024,
    )


class VAEStage(L.LightningModule):
    """L1 + KL, with part of every batch decoded from codes.

    A KL term alone spreads the latent evenly, and 1024 atoms then cover eight dimensions badly. Some of the
    clips in a batch are decoded from their nearest atoms of a codebook that is learned beside (EMA), so the
    encoder puts what matters most where few atoms can tell it, and the decoder learns to live with them.
    The codebook itself is thrown away: users fit their own on the frozen result.

    Where there is a run of the stage ``linear``, this one begins with what that one ended with.
    """

    frames, batch_size, fill, learning_rate = 128, 8, True, 5e-4
    needs_runs, chain = True, False

    def __init__(
        self,
        runs: str | None = None,
        start: Path | None = None,
        kl_weight: float = 1e-3,
        quantised_share: float = 0.25,
        quantise_from: int = 300,
        width: float = 32,
    ):
        super().__init__()
        self.save_hyperparameters(ignore=["runs", "start"])
        self.vae = untrained(width)
        linear.initialise(self.vae)
        self.register_buffer("whole", torch.tensor(False))  # or its chain alone
        torch.nn.init.constant_(self.vae.decoder.conv_out.bias, -5.0)  # the mean log-mel: minutes saved
        self.quantizer = HardQuantizer(learn="ema", decay=0.98)
        self.register_buffer("clustered", torch.tensor(False))  # its atoms have begun where latents are
        self.register_buffer("middle", torch.zeros(LATENT_CHANNELS))  # mean latent, followed
        begun = runs and (Path(runs) / "linear" / "last.ckpt").exists()
        if begun and start is None and not self.chain:
            self.load_state_dict(checkpoints.last(Path(runs), "linear")["state_dict"])

    def start_from(self, folder: Path) -> None:
        self.whole.fill_(True)
        self.vae.load_state_dict(pretrained.vae(folder).state_dict())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.vae.parameters(), lr=self.learning_rate, betas=(0.9, 0.95), weight_decay=1e-2)

    def _encode(self, mel: torch.Tensor):
        return self.vae.encode(mel).latent_dist if self.whole else linear.encode(self.vae, mel)

    def _decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(z).sample if self.whole else linear.decode(self.vae, z)

    def training_step(self, batch, batch_idx):
        mel = log_mel(batch["audio"])
        if not self.whole and not self.chain:
            linear.unfold(self.vae, mel)
            self.whole.fill_(True)
        posterior = self._encode(mel)
        z = posterior.sample()
        self.middle.lerp_(posterior.mean.detach().float().mean(dim=(0, 2, 3)), 0.02)
        logs = {}
        if not self.clustered and self.global_step >= self.hparams.quantise_from:
            self.quantizer.initialise(posterior.mean.detach().movedim(1, -1).reshape(-1, 8).float())
            self.clustered.fill_(True)
        commitment, count = 0.0, round(len(z) * self.hparams.quantised_share)
        if count and self.clustered:
            quantised = self.quantizer(posterior.mean[:count])
            z = torch.cat([quantised.z, z[count:]])
            commitment = quantised.losses["commitment"]
            logs |= {"perplexity": quantised.perplexity, "commitment": commitment}
        error = (self._decode(z) - mel).abs().float()
        kl = posterior.kl().mean() / mel[0].numel()  # nats per mel value, the unit of the error
        loss = error.mean() + self.hparams.kl_weight * kl + 0.25 * commitment
        self.log_dict(logs | {"l1": error.mean(), "kl": kl}, prog_bar=True)
        return loss

    @torch.no_grad()
    def on_train_end(self) -> None:
        """Move the latents so that they have no mean, as diffusion begins; mels stay as they are."""
        self.vae.quant_conv.bias[: len(self.middle)] -= self.middle
        self.vae.post_quant_conv.bias += self.vae.post_quant_conv.weight[:, :, 0, 0] @ self.middle
        self.quantizer.codebook -= self.middle
        self.quantizer.sums -= self.quantizer.counts[:, None] * self.middle
        self.middle.zero_()

    def validation_step(self, clip, batch_idx):
        mel = log_mel(clip["audio"])
        z = self._encode(mel).mode()
        for name, latent in (("val_mel_db", z), ("val_quantised_mel_db", self.quantizer(z).z)):
            error = (self._decode(latent).float() - mel).abs().mean() * LN_TO_DB
            self.log(name, error, batch_size=1, prog_bar=True)


class LinearStage(VAEStage):
    """The same training for the chain of plain convolutions in it, alone: minutes, and most of the way."""

    learning_rate, chain = 2e-3, True

    def start_from(self, folder: Path) -> None:
        raise UserError(f"{folder} is whole: it has no use for the stage linear; go on with --stage vae")


def load_vae(runs: Path, start: Path | None = None) -> AutoencoderKL:
    """The trained VAE of a runs folder, or else that of an assembled folder ``start``; frozen, fp32."""
    if start is not None and not (runs / "vae" / "last.ckpt").exists():
        return pretrained.vae(start).eval().requires_grad_(False)
    saved = checkpoints.last(runs, "vae")
    vae = untrained(**checkpoints.width(saved))
    vae.load_state_dict(checkpoints.weights(saved, "vae."))
    return vae.eval().requires_grad_(False)
