"""Stage ``clap``: audio (B, S) and captions -> one space of (B, 128)."""

import functools
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch.nn import functional as F
from transformers import ClapModel

from pocket import checkpoints, pretrained, text
from pocket.corpus import pool

RATE = 48000


@functools.lru_cache(maxsize=1)
def _bank() -> torch.Tensor:
    return torch.from_numpy(text.feature_extractor().mel_filters_slaney.T.astype(np.float32))  # (64, 513)


def upsample(audio: torch.Tensor) -> torch.Tensor:
    """(B, S) at 16 kHz -> (B, 3 S) at 48 kHz, band-limited exactly: nothing appears above 8 kHz."""
    size = 3 * audio.shape[1]
    return torch.fft.irfft(torch.fft.rfft(audio) * 3, n=size)


@torch.autocast("cpu", enabled=False)
@torch.autocast("cuda", enabled=False)
def features(audio: torch.Tensor) -> torch.Tensor:
    """What ``ClapFeatureExtractor`` gives for 48 kHz audio (B, S) of at most 10 s: (B, 1, 1001, 64), in dB.

    Short audio is repeated as often as it fits whole, and the rest is silence.
    """
    audio = audio.float()
    size = 10 * RATE
    audio = audio[:, :size].repeat(1, max(1, size // audio.shape[1]))
    audio = F.pad(audio, (0, size - audio.shape[1]))
    window = torch.hann_window(1024, device=audio.device)
    spectrum = torch.stft(audio, 1024, 480, window=window, center=True, pad_mode="reflect", return_complex=True)
    power = torch.view_as_real(spectrum).square().sum(-1)
    mel = (_bank().to(audio.device) @ power).clamp(min=1e-10)
    return 10 * mel.log10().transpose(1, 2)[:, None]


def cut(
    audio: torch.Tensor, samples: int, generator: torch.Generator | None = None, repeated: float = 0.75
) -> torch.Tensor:
    """Windows (B, S) that end in silence where their clip ends -> pieces (B, samples).

    The clip is cut at random where it is longer. The share ``repeated`` of the short ones is repeated up to the length:
    most clips are single words and drum hits, and a classifier that meets them with silence behind takes the silence
    for the sign. A model that generates learns to repeat from them, so it wants fewer.
    """
    pieces = []
    for row in audio:
        sounding = row.nonzero()
        row = row[: int(sounding[-1]) + 1 if len(sounding) else samples]
        start = int(torch.randint(max(1, len(row) - samples + 1), (), generator=generator))
        row = row[start : start + samples]
        if torch.rand((), generator=generator) < repeated:
            row = row.repeat(-(-samples // len(row)))[:samples]
        pieces.append(F.pad(row, (0, samples - len(row))))
    return torch.stack(pieces)


def contrastive(logits: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """InfoNCE over rows; ``same`` (B, B) marks pairs with equal captions, which are no negatives."""
    others = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    return F.cross_entropy(logits.float().masked_fill(others, -torch.inf), torch.arange(len(same), device=same.device))


class ClapStage(L.LightningModule):
    """Symmetric InfoNCE with learned temperatures, on pieces of 1 to 4.8 s.

    The tokenizers' vocabularies are part of the checkpoint, T5's as well: the unet stage takes them from here.
    """

    frames, batch_size, fill, learning_rate = 480, 32, False, 1e-3

    def __init__(self):
        super().__init__()
        self.pieces = text.learn_pieces(text.captions())
        self.clap = text.clap(len(self.pieces["bpe"]))
        self.tokenizer = text.tokenizers(self.pieces)[0]
        self.kinds = {row["caption"]: row["kind"] for row in pool()}

    def start_from(self, folder: Path) -> None:
        model, pieces = pretrained.clap(folder)
        self.clap.load_state_dict(model.state_dict())
        self.on_load_checkpoint({"pieces": pieces})

    def configure_optimizers(self):
        return torch.optim.AdamW(self.clap.parameters(), lr=self.learning_rate, betas=(0.9, 0.98), weight_decay=0.1)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["pieces"] = self.pieces

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.pieces = checkpoint["pieces"]
        self.tokenizer = text.tokenizers(self.pieces)[0]

    def embed(self, audio: torch.Tensor, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """16 kHz audio (B, S), B captions -> two times (B, 128) of length 1."""
        tokens = {name: x.to(audio.device) for name, x in text.clap_tokens(self.tokenizer, captions).items()}
        audio_embeds = self.clap.get_audio_features(input_features=features(upsample(audio))).pooler_output
        return audio_embeds.float(), self.clap.get_text_features(**tokens).pooler_output.float()

    def on_before_batch_transfer(self, batch, dataloader_idx: int):
        """Cut the windows while they are on the CPU: to look for the end of each would wait for a GPU each time.

        One length for the batch: at test time clips have any, and the extractor repeats them up to 10 s.
        """
        if not self.trainer.training:
            return batch
        size = batch["audio"].shape[1]
        return {**batch, "audio": cut(batch["audio"], int(torch.randint(min(16000, size), size + 1, ())))}

    def training_step(self, batch, batch_idx):
        audio, captions = batch["audio"], batch["caption"]
        audio_embeds, text_embeds = self.embed(audio, captions)
        numbers = {caption: i for i, caption in enumerate(captions)}
        number = torch.tensor([numbers[caption] for caption in captions], device=audio.device)
        same = number[:, None] == number
        # At most 100, as in CLIP: the captions can be learned by heart, and then the scale would only grow.
        scale_a, scale_t = (s.exp().clamp(max=100) for s in (self.clap.logit_scale_a, self.clap.logit_scale_t))
        cosine = audio_embeds @ text_embeds.T
        loss = (contrastive(scale_a * cosine, same) + contrastive(scale_t * cosine.T, same)) / 2
        self.log_dict({"loss": loss, "scale": scale_a}, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._audio_embeds, self._text_embeds, self._captions = [], [], []

    def validation_step(self, clip, batch_idx):
        audio_embeds, text_embeds = self.embed(clip["audio"], clip["caption"])
        self._audio_embeds.append(audio_embeds)
        self._text_embeds.append(text_embeds)
        self._captions += clip["caption"]

    def on_validation_epoch_end(self) -> None:
        """Each clip looks for its caption among those of all clips: is it the right one, is it the right kind?"""
        cosine = torch.cat(self._audio_embeds) @ torch.cat(self._text_embeds).T
        best = [self._captions[i] for i in cosine.argmax(dim=1).tolist()]
        right = [a == b for a, b in zip(best, self._captions, strict=True)]
        kind = [self.kinds.get(a) == self.kinds.get(b) for a, b in zip(best, self._captions, strict=True)]
        scores = {"val_retrieval": sum(right) / len(right), "val_kind": sum(kind) / len(kind)}
        self.log_dict(scores, prog_bar=True)


def load_clap(runs: Path, start: Path | None = None) -> tuple[ClapModel, dict]:
    """The trained CLAP of a runs folder, or else that of an assembled folder ``start``; frozen, fp32. And the
    vocabularies of both tokenizers.
    """
    if start is not None and not (runs / "clap" / "last.ckpt").exists():
        model, pieces = pretrained.clap(start)
        return model.eval().requires_grad_(False), pieces
    checkpoint = checkpoints.last(runs, "clap")
    model = text.clap(len(checkpoint["pieces"]["bpe"]))
    model.load_state_dict(checkpoints.weights(checkpoint, "clap."))
    return model.eval().requires_grad_(False), checkpoint["pieces"]
