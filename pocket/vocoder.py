"""Stage ``vocoder``: log-mel (B, T, 64) -> audio (B, 160 T)."""

from itertools import pairwise
from pathlib import Path

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from ddcm.audio.mel import LN_TO_DB, log_mel
from pocket import checkpoints, pretrained
from pocket.optimizer import muon
from pocket.vae import load_vae

RESOLUTIONS = ((256, 64), (512, 128), (1024, 256))  # (n_fft, hop) of the discriminators and the STFT loss,
LONG = (2048, 512)  # and of the loss alone: bass needs a long look


def untrained(width: float = 256) -> SpeechT5HifiGan:
    """With ``width`` channels, a multiple of 16, before the first of four upsamplings, each of which halves them.

    Kernels of transposed convolutions are multiples of their stride, so that every output sample has as many inputs
    as its neighbours: no tones at multiples of the frame rate, and no tail to cut.
    """
    return SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=64,
            sampling_rate=16000,
            upsample_initial_channel=int(width),
            upsample_rates=[5, 4, 4, 2],
            upsample_kernel_sizes=[15, 16, 16, 8],
            resblock_kernel_sizes=[3, 7, 11],
            resblock_dilation_sizes=[[1, 3, 5]] * 3,
            normalize_before=False,
        )
    )


def magnitudes(audio: torch.Tensor, n_fft: int, hop: int) -> torch.Tensor:
    """(B, S) -> (B, n_fft // 2 + 1, frames). The floor keeps the gradient of sqrt finite."""
    window = torch.hann_window(n_fft, device=audio.device)
    spectrum = torch.view_as_real(torch.stft(audio, n_fft, hop, window=window, return_complex=True))
    return spectrum.square().sum(-1).clamp(min=1e-10).sqrt()


def stft_loss(fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Spectral convergence + log-magnitude L1 over several resolutions (Parallel WaveGAN, arXiv 1910.11480).

    Convergence counts double: the log-mel hardly changes when a loud bass is too soft; the level does.
    """
    total = 0.0
    for n_fft, hop in (*RESOLUTIONS, LONG):
        a, b = magnitudes(fake, n_fft, hop), magnitudes(real, n_fft, hop)
        convergence = (b - a).norm(dim=(1, 2)) / b.norm(dim=(1, 2)).clamp(min=1e-3)
        floor = 1e-4
        total = total + 2 * convergence.mean() + (a.clamp(min=floor).log() - b.clamp(min=floor).log()).abs().mean()
    return total / (len(RESOLUTIONS) + 1)


def synthesize_notes(count: int, samples: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Random sustained and decaying notes (count, samples) at 16 kHz, peak at most 0.5; half of them sound in pairs.

    Fundamentals are even in pitch from 60 Hz to 4 kHz, with up to 48 partials. Recorded notes are few, and each holds
    one pitch: a vocoder that learned from them alone fills the gaps between the partials of others with noise.
    """

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, 1, device=device)

    number = torch.arange(1, 49, device=device)[None, :, None]
    stretch = 10 ** (-6 + 3 * rand(1)) * (rand(1) < 0.5)  # strings are not quite harmonic
    frequency = 60 * (4000 / 60) ** rand(1) * number * (1 + stretch * number**2).sqrt()
    gain_db = -(2 + 30 * rand(1) ** 2) * number.log2() + 8 * torch.randn(count, 48, 1, device=device)
    gain = 10 ** (gain_db / 20) * (frequency < 7800) * ((number % 2 == 1) | (rand(1) < 0.75))
    time = torch.arange(samples, device=device) / 16000
    wobble_hz, wobble = 3 + 5 * rand(1), 0.02 * rand(1) * (rand(1) < 0.3)
    warped = time + wobble * (1 - (2 * torch.pi * wobble_hz * time).cos()) / (2 * torch.pi * wobble_hz)
    since = time - (rand(1) * 2 - 1.5) * samples / 16000  # three in four begin before the window
    envelope = (since / (0.002 + 0.1 * rand(1) ** 2)).clamp(0, 1)
    envelope = envelope * (-since.clamp(min=0) * 10 ** (-1.5 + 2.5 * rand(1)) * number**0.5).exp()
    notes = (gain * envelope * (2 * torch.pi * (frequency * warped + rand(48))).sin()).sum(1)
    notes = notes / (notes.abs().amax(1, keepdim=True) + 1e-4)
    notes = notes + notes.roll(1, 0) * rand() * (rand() < 0.5)
    loudness = 0.5 * 10 ** (-12 * rand() * (rand() < 0.5) / 20)
    notes = notes + 10 ** (-3 - 2.5 * rand()) * torch.randn_like(notes)
    return loudness * notes / notes.abs().amax(1, keepdim=True).clamp(min=1)


class SpectrumDiscriminator(nn.Module):
    """Scores log-magnitudes at one resolution (UnivNet, arXiv 2106.07889); returns the score and the features."""

    def __init__(self, n_fft: int, hop: int, channels: int = 16):
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        widths = [1, channels, channels, channels, channels]
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(nn.Conv2d(a, b, (9, 3), stride=(2, 1), padding=(4, 1)))
            for a, b in pairwise(widths)
        )
        self.score = nn.utils.parametrizations.weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, audio: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x = magnitudes(audio, self.n_fft, self.hop).clamp(min=1e-4).log()[:, None]
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return self.score(x), features


def compute_last_stage_exactly(vocoder: SpeechT5HifiGan) -> None:
    """On a GPU the layers at the output's rate run in full float32: TF32 rounds the samples to 11 bits."""

    def allow(allowed: bool):
        def hook(*_) -> None:
            torch.backends.cudnn.allow_tf32 = allowed and torch.get_float32_matmul_precision() != "highest"

        return hook

    blocks = vocoder.resblocks[-len(vocoder.config.resblock_kernel_sizes) :]
    for layer in (vocoder.upsampler[-1], *blocks, vocoder.conv_post):
        layer.register_forward_pre_hook(allow(False))
        layer.register_forward_hook(allow(True))


class VocoderStage(L.LightningModule):
    """Matched log-mel L1 and multi-resolution STFT losses; discriminators join when the share ``adversarial_from``
    of the budget is spent: never by default, because minutes on a CPU are no time for them.

    Where a trained VAE lies in the runs folder, some of the input mels have been through it, so that the vocoder
    forgives what the VAE smears; the target stays the recording. The share ``notes`` of the others is synthesised, and
    in the share ``short`` of the steps each window is four short ones: many clips are shorter than a window, and begin
    and end where the network sees nothing.
    """

    needs_runs = True
    automatic_optimization = False
    frames, batch_size, fill, learning_rate = 64, 12, True, 1e-3
    precision = "32-true"  # in bf16 the samples themselves would carry noise 50 dB below them: nothing soft is learned

    def __init__(
        self,
        runs: str,
        start: Path | None = None,
        adversarial_from: float = 1.0,
        vae_share: float = 0.25,
        mirrored: float = 0.4,
        notes: float = 0.12,
        short: float = 0.2,
        width: float = 256,
    ):
        super().__init__()
        self.save_hyperparameters(ignore=["runs", "start"])
        self.vocoder = untrained(width)
        for layer in self.vocoder.modules():  # the class's own init (std 0.01) is for converted weights
            if isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d)):
                layer.reset_parameters()
        compute_last_stage_exactly(self.vocoder)
        self.discriminators = nn.ModuleList(SpectrumDiscriminator(*r) for r in RESOLUTIONS)
        # Frozen and not part of this stage's checkpoint: a list hides it from the module tree.
        trained = start is not None or (Path(runs) / "vae" / "last.ckpt").exists()
        self._vae = [load_vae(Path(runs), start)] if trained else []

    def start_from(self, folder: Path) -> None:
        self.vocoder.load_state_dict(pretrained.vocoder(folder).state_dict())

    def configure_optimizers(self):
        return [
            muon(self.vocoder, self.learning_rate, betas=(0.8, 0.99)),
            torch.optim.AdamW(self.discriminators.parameters(), lr=self.learning_rate / 2, betas=(0.8, 0.99)),
        ]

    @property
    def adversarial(self) -> bool:
        budget = next((c for c in self.trainer.callbacks if hasattr(c, "progress")), None)
        return budget is not None and budget.progress >= self.hparams.adversarial_from

    def _through(self, size: int) -> int:
        """How many windows of a batch pass the VAE: its first ones."""
        return round(size * self.hparams.vae_share)

    def _with_mirrored(self, audio: torch.Tensor) -> torch.Tensor:
        """Some of the windows that do not pass the VAE get their spectrum mirrored, f -> 8 kHz - f.

        Recordings hold little but noise above 4 kHz; mirrored, their harmonics are there, and a bird can be sung.
        """
        size = len(audio)
        chosen = (torch.rand(size) < self.hparams.mirrored) & (torch.arange(size) >= self._through(size))
        signs = 1 - 2 * (torch.arange(audio.shape[1]) % 2)  # (-1)^n
        return torch.where(chosen[:, None].to(audio.device), audio * signs.to(audio), audio)

    def _with_notes(self, audio: torch.Tensor) -> torch.Tensor:
        """The last windows of a batch become notes, as far as they do not pass the VAE."""
        count = round((len(audio) - self._through(len(audio))) * self.hparams.notes)
        if not count:
            return audio
        return torch.cat([audio[:-count], synthesize_notes(count, audio.shape[1], audio.device)])

    @torch.no_grad()
    def _through_vae(self, mel: torch.Tensor) -> torch.Tensor:
        vae = self._vae[0].to(mel.device)
        return vae.decode(vae.encode(mel).latent_dist.mode()).sample.float()

    def vocode(self, mel: torch.Tensor) -> torch.Tensor:
        """mel (B, 1, T, 64) -> (B, 160 T)."""
        return self.vocoder(mel[:, 0])[:, : 160 * mel.shape[2]].float()

    def training_step(self, batch, batch_idx):
        real = self._with_notes(self._with_mirrored(batch["audio"]))
        if torch.rand(()) < self.hparams.short:
            real = real.reshape(-1, real.shape[1] // 640 * 160)
        mel = log_mel(real)
        inputs, count = mel, self._through(len(mel))
        if self._vae and count:
            inputs = torch.cat([self._through_vae(mel[:count]), mel[count:]])
        fake = self.vocode(inputs)
        generator_step, discriminator_step = self.optimizers()
        mel_error = (log_mel(fake) - mel).abs().mean()
        spectral = stft_loss(fake, real)
        loss = 4.0 * mel_error + 2.0 * spectral
        logs = {"mel_db": mel_error * LN_TO_DB, "stft": spectral}
        if self.adversarial:
            discriminator_loss = sum(
                ((1 - discriminator(real)[0]) ** 2).mean() + (discriminator(fake.detach())[0] ** 2).mean()
                for discriminator in self.discriminators
            )
            discriminator_step.zero_grad()
            self.manual_backward(discriminator_loss)
            discriminator_step.step()
            adversarial, match = 0.0, 0.0
            for discriminator in self.discriminators:
                score, features = discriminator(fake)
                with torch.no_grad():
                    _, wanted = discriminator(real)
                adversarial = adversarial + ((1 - score) ** 2).mean()
                match = match + sum((a - b).abs().mean() for a, b in zip(features, wanted, strict=True))
            loss = loss + 0.2 * adversarial + 0.4 * match
            logs |= {"discriminator": discriminator_loss, "adversarial": adversarial, "match": match}
        generator_step.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(generator_step, gradient_clip_val=2.0, gradient_clip_algorithm="norm")
        generator_step.step()
        self.log_dict(logs, prog_bar=True)

    def validation_step(self, clip, batch_idx):
        mel = log_mel(clip["audio"])
        fake = self.vocode(mel)
        self.log("val_mel_db", (log_mel(fake) - mel).abs().mean() * LN_TO_DB, batch_size=1, prog_bar=True)
        if self._vae:
            fake = self.vocode(self._through_vae(mel))
            error = (log_mel(fake) - mel).abs().mean() * LN_TO_DB
            self.log("val_with_vae_db", error, batch_size=1, prog_bar=True)
        if batch_idx % 8 == 0 and self.logger is not None:
            for name, audio in (("input", clip["audio"]), ("output", fake)):
                self.logger.experiment.add_audio(f"{batch_idx}/{name}", audio[0].cpu(), self.global_step, 16000)


def load_vocoder(runs: Path) -> SpeechT5HifiGan:
    """The trained vocoder of a runs folder, fp32."""
    saved = checkpoints.last(runs, "vocoder")
    model = untrained(**checkpoints.width(saved))
    model.load_state_dict(checkpoints.weights(saved, "vocoder."))
    return model
