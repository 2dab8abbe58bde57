"""Stage ``unet``: the noise of a noisy latent (B, 8, T, 16) -> its estimate, with T5, projection and GPT-2."""

import copy
import hashlib
import random
from collections import deque
from pathlib import Path

import lightning as L
import torch
from diffusers import AudioLDM2UNet2DConditionModel, DDIMScheduler
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import nn

from ddcm.audio.mel import log_mel
from ddcm.errors import UserError
from pocket import checkpoints, pretrained, text
from pocket.batches import Windows
from pocket.clap import cut, load_clap
from pocket.optimizer import muon
from pocket.vae import load_vae

# AudioLDM2's own.
SCHEDULER = dict(
    num_train_timesteps=1000,
    beta_start=0.0015,
    beta_end=0.0195,
    beta_schedule="scaled_linear",
    prediction_type="epsilon",
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
    timestep_spacing="leading",
)
SAMPLES = 40960  # of a usual training window, 2.56 s


def digest(module: nn.Module) -> str:
    """Which weights these are: a latent or an embedding means nothing under others."""
    state = hashlib.sha256()
    for name, x in sorted(module.state_dict().items()):
        state.update(name.encode() + x.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()[:16]


def encoder_digest(vae: nn.Module) -> str:
    return digest(nn.ModuleList([vae.encoder, vae.quant_conv]))


def frozen_digests(vae: nn.Module, clap: nn.Module) -> dict[str, str]:
    """Of what the UNet's inputs come from. The decoder of the VAE may still change."""
    reader = nn.ModuleList([clap.text_model, clap.text_projection])
    return {"vae": encoder_digest(vae), "clap": digest(reader)}


def check_frozen(saved: dict[str, str], now: dict[str, str]) -> None:
    for name, value in now.items():
        if saved[name] != value:
            raise UserError(f"the unet was trained on another {name} than the one in the runs folder: train it anew")


def untrained(width: float = 64) -> AudioLDM2UNet2DConditionModel:
    """The form of cvssp/audioldm2, ``width`` channels in every block, a multiple of 8: per block a self-attention,
    one to GPT-2's states and one to T5's.
    """
    width = int(width)
    return AudioLDM2UNet2DConditionModel(
        sample_size=256,
        in_channels=8,
        out_channels=8,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3 + ("UpBlock2D",),
        block_out_channels=(width,) * 4,
        layers_per_block=1,
        norm_num_groups=width // 2,
        cross_attention_dim=[[None, text.WIDTH, text.WIDTH]] * 4,
        attention_head_dim=8,  # the count of heads, as on the hub
    )


def trained_parts(vocab_size: int, width: float = 64) -> nn.ModuleDict:
    """What the stage trains, untrained: unet, t5, projection, gpt2."""
    parts = text.language(vocab_size)
    parts["unet"] = untrained(width)
    # Torch's fused attention for CPUs is 2.5 times slower than plain products at 8 channels a head.
    parts["unet"].set_default_attn_processor()
    parts["gpt2"].set_attn_implementation("eager")  # rows of padding alone are NaN in some of the fused kernels
    return parts


class UNetStage(L.LightningModule):
    """Epsilon prediction on AudioLDM2's schedule, and an average (EMA) of all that is trained.

    An error of the clean latent counts by the signal-to-noise ratio, between ``snr_floor`` and ``snr_limit``. The
    limit is that of min-SNR weighting (arXiv 2303.09556). Without the floor the noisiest steps, where a caption says
    most, count for nothing: at t = 999 the ratio is 1.4e-4.

    One caption in ten is dropped: half of these get what AudioLDM2 was trained on (zeros for GPT-2's states, and
    T5's of the empty prompt), half the empty prompt through everything, which the stock pipeline guides against.

    Encoding windows costs as much as learning from them, so each is used several times, with other noise: a batch is
    ``batch_size`` new windows and ``replayed`` earlier ones. A resumed run starts with none of these. The share
    ``repeated`` of the clips that are shorter than their window is repeated in it. One batch in ``long_every`` uses
    5.12 s of each window. ``fused`` attention is for GPUs, in float32.
    """

    needs_runs = True
    # Windows of 5.12 s: most batches use 2.56 s of each; a long batch uses all of them, and replays a third as many.
    frames, batch_size, fill, learning_rate = 512, 4, False, 2e-3
    buffer_size = 4096  # windows to replay
    timesteps = (25, 150, 350, 600, 850)  # of validation

    def __init__(
        self,
        runs: str,
        start: Path | None = None,
        dropped: float = 0.1,
        decay: float = 0.999,
        snr_limit: float = 5.0,
        snr_floor: float = 0.1,
        replayed: int = 12,
        repeated: float = 0.25,
        long_every: int = 8,
        fused: bool = False,
        width: float = 64,
    ):
        super().__init__()
        self.save_hyperparameters(ignore=["runs", "start"])
        for name in ("vae", "clap"):
            if start is None and not (Path(runs) / name / "last.ckpt").exists():
                raise UserError(f"stage unet needs {Path(runs) / name / 'last.ckpt'}: train {name} first")
        # Frozen and not part of this stage's checkpoint: lists hide them from the module tree.
        clap, self.pieces = load_clap(Path(runs), start)
        vae = load_vae(Path(runs), start).to(memory_format=torch.channels_last)  # a quarter faster on CPUs
        self._vae, self._clap, self._embeds = [vae], [clap], {}
        self._earlier: dict[int, deque[tuple[torch.Tensor, str]]] = {}  # by length: latents and captions
        self.frozen = frozen_digests(vae, clap)
        self.clap_tokenizer, self.t5_tokenizer = text.tokenizers(self.pieces)
        self.parts = trained_parts(len(self.pieces["unigram"]), width)
        if fused:
            self.parts["unet"].set_attn_processor(AttnProcessor2_0())
        self.ema = copy.deepcopy(self.parts).requires_grad_(False).eval()
        self.register_buffer("scaling_factor", torch.tensor(torch.nan))
        self.register_buffer("abar", DDIMScheduler(**SCHEDULER).alphas_cumprod, persistent=False)

    def start_from(self, folder: Path) -> None:
        """The text models begin anew where their vocabulary is another one by now, and the latent's scale is measured
        anew where the encoder is.
        """
        state = pretrained.parts(folder).state_dict()
        if pretrained.pieces(folder) != self.pieces:
            state = {**self.parts.state_dict(), **{name: x for name, x in state.items() if name.startswith("unet.")}}
        self.parts.load_state_dict(state)
        self.ema.load_state_dict(state)
        vae = pretrained.vae(folder)
        if encoder_digest(vae) == self.frozen["vae"]:
            self.scaling_factor.fill_(vae.config.scaling_factor)

    def configure_optimizers(self):
        return muon(self.parts, self.learning_rate, betas=(0.9, 0.99))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["pieces"], checkpoint["frozen"] = self.pieces, self.frozen

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        check_frozen(checkpoint["frozen"], self.frozen)

    def on_train_start(self) -> None:
        """Measure the latent's scale, once, on windows that are always the same."""
        if torch.isnan(self.scaling_factor):
            windows = iter(Windows(self.trainer.train_dataloader.dataset.corpus, self.frames, seed=20240, fill=False))
            audio = torch.stack([next(windows)["audio"] for _ in range(64)])
            audio = cut(audio, SAMPLES, torch.Generator().manual_seed(0)).to(self.device)
            z = torch.cat([self._posterior_mode(part) for part in audio.split(8)])
            self.scaling_factor.fill_(1 / z.std())
            print(f"scaling_factor {float(self.scaling_factor):.4f} (channels' std: {z.std(dim=(0, 2, 3)).tolist()})")

    @torch.no_grad()
    def _posterior_mode(self, audio: torch.Tensor) -> torch.Tensor:
        vae = self._vae[0].to(audio.device)
        return vae.encode(log_mel(audio)).latent_dist.mode().float()

    def encode_audio(self, audio: torch.Tensor) -> torch.Tensor:
        """(B, S) -> latent (B, 8, S / 640, 16), of variance one over the corpus."""
        return self._posterior_mode(audio) * self.scaling_factor

    def encode_captions(self, parts: nn.ModuleDict, captions: list[str], null: torch.Tensor):
        """Conditions of B captions; where ``null`` (B,), GPT-2's states are zeros."""
        missing = sorted(set(captions) - self._embeds.keys())
        if missing:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                clap = self._clap[0].to(self.device)
                tokens = text.clap_tokens(self.clap_tokenizer, missing)
                embeds = clap.get_text_features(**{k: v.to(self.device) for k, v in tokens.items()}).pooler_output
                self._embeds.update(zip(missing, embeds, strict=True))
        embeds = torch.stack([self._embeds[caption] for caption in captions])
        generated, states, mask = text.encode(parts, self.t5_tokenizer, embeds, captions)
        return generated * ~null[:, None, None], states, mask

    def _with_earlier(self, z: torch.Tensor, captions: list[str], count: int) -> tuple[torch.Tensor, list[str]]:
        """New latents and up to ``count`` earlier ones of their length; the new ones are kept for later."""
        if not count:
            return z, captions  # nothing is copied from the device
        earlier = self._earlier.setdefault(z.shape[2], deque(maxlen=self.buffer_size))
        again = random.sample(earlier, min(int(count), len(earlier)))
        earlier.extend(zip(z.half().cpu(), captions, strict=True))
        known = [x.to(z) for x, _ in again]
        return torch.cat([z, torch.stack(known)]) if known else z, [*captions, *(caption for _, caption in again)]

    def predict(self, parts: nn.ModuleDict, x: torch.Tensor, t: torch.Tensor, conditions) -> torch.Tensor:
        generated, states, mask = conditions
        return parts["unet"](
            x, t, encoder_hidden_states=generated, encoder_hidden_states_1=states, encoder_attention_mask_1=mask
        ).sample.float()

    def noisy(self, z: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        abar = self.abar[t][:, None, None, None]
        return abar.sqrt() * z + (1 - abar).sqrt() * noise

    def on_before_batch_transfer(self, batch, dataloader_idx: int):
        """Cut the windows while they are on the CPU: to look for the end of each would wait for a GPU each time."""
        if not self.trainer.training:
            return batch
        long = self.global_step % self.hparams.long_every == self.hparams.long_every - 1
        size = batch["audio"].shape[1] if long else min(SAMPLES, batch["audio"].shape[1])
        return {**batch, "audio": cut(batch["audio"], size, repeated=self.hparams.repeated)}

    def training_step(self, batch, batch_idx):
        audio, captions = batch["audio"], batch["caption"]
        long = audio.shape[1] > SAMPLES
        z = self.encode_audio(audio)
        z, captions = self._with_earlier(z, captions, self.hparams.replayed // (3 if long else 1))
        size = len(z)
        chance = torch.rand(size)
        captions = ["" if p < self.hparams.dropped else caption for p, caption in zip(chance, captions, strict=True)]
        null = (chance < self.hparams.dropped / 2).to(z.device)
        # One timestep from each of B equal ranges: less variance than B free draws.
        t = ((torch.arange(size) + torch.rand(size)) / size * len(self.abar)).long().to(z.device)
        noise = torch.randn_like(z)
        conditions = self.encode_captions(self.parts, captions, null)
        estimate = self.predict(self.parts, self.noisy(z, noise, t), t, conditions)
        error = (estimate - noise).square().mean(dim=(1, 2, 3))
        snr = self.abar[t] / (1 - self.abar[t])
        loss = (error * snr.clamp(self.hparams.snr_floor, self.hparams.snr_limit) / snr).mean()
        self.log_dict({"loss": loss, "eps_mse": error.mean()}, prog_bar=True)
        return loss

    @torch.no_grad()
    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        decay = min(self.hparams.decay, (1 + self.global_step) / (10 + self.global_step))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.parts.parameters()), 1 - decay)

    def validation_step(self, clip, batch_idx):
        z = self.encode_audio(clip["audio"])
        t = torch.tensor(self.timesteps, device=z.device)
        noise = torch.randn(len(t), *z.shape[1:], generator=torch.Generator().manual_seed(batch_idx)).to(z.device)
        x = self.noisy(z, noise, t)
        for name, caption in (("val_eps_mse", clip["caption"][0]), ("val_null_eps_mse", "")):
            null = torch.tensor([not caption], device=z.device)
            conditions = [c.expand(len(t), *c.shape[1:]) for c in self.encode_captions(self.ema, [caption], null)]
            error = (self.predict(self.ema, x, t, conditions) - noise).square().mean()
            self.log(name, error, batch_size=1, prog_bar=True)


def load_parts(runs: Path) -> tuple[nn.ModuleDict, dict]:
    """The averaged weights of a runs folder (unet, t5, projection, gpt2), fp32, and the rest of the checkpoint."""
    checkpoint = checkpoints.last(runs, "unet")
    parts = trained_parts(len(checkpoint["pieces"]["unigram"]), **checkpoints.width(checkpoint))
    parts.load_state_dict(checkpoints.weights(checkpoint, "ema."))
    return parts.eval().requires_grad_(False), checkpoint
