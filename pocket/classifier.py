"""A small classifier that names the kind of a sound from its mel: the judge of what the backbone generates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from ddcm.audio.mel import log_mel
from ddcm.errors import UserError
from pocket.batches import Windows, validation
from pocket.corpus import KINDS, Corpus

SECONDS = 5.12
SAMPLES = round(SECONDS * 16000)


class Listener(nn.Module):
    """Log-mel (B, 1, T, 64), T at least 32 -> logits of KINDS (B, 4), the same for any level of the recording."""

    def __init__(self, width: int = 32):
        super().__init__()

        def layer(entering: int, leaving: int, size: int = 3, stride: int = 1) -> nn.Sequential:
            conv = nn.Conv2d(entering, leaving, size, stride, padding=size // 2, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(leaving), nn.ReLU())

        blocks = [
            nn.Sequential(layer(a, b), layer(b, b), nn.MaxPool2d(2))
            for a, b in ((width, width), (width, 2 * width), (2 * width, 4 * width))
        ]
        self.blocks = nn.Sequential(layer(1, width, size=5, stride=2), *blocks)
        self.head = nn.Linear(8 * width, len(KINDS))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        loudest = mel.amax(dim=(1, 2, 3), keepdim=True)
        found = self.blocks((mel - loudest).clamp(min=-9.0) / 3 + 1)  # 78 dB below the loudest is silence
        return self.head(torch.cat([found.mean(dim=(2, 3)), found.amax(dim=(2, 3))], dim=1))


def whole(audio: np.ndarray) -> torch.Tensor:
    """Audio of any length -> (SAMPLES,), cut or followed by silence, as the listener was trained."""
    audio = torch.as_tensor(audio)[:SAMPLES]
    return F.pad(audio, (0, SAMPLES - len(audio)))


def load_listener(file: Path) -> Listener:
    """
    Raises:
        UserError: the weights are those of a listener of another form.
    """
    listener = Listener()
    try:
        listener.load_state_dict(torch.load(file, weights_only=True))
    except RuntimeError as error:
        raise UserError(f"{file} is of another listener: remove it, and it is trained anew") from error
    return listener.eval()


def train_listener(corpus: Corpus, file: Path, steps: int = 400, batch: int = 24) -> Listener:
    """Trained on the training clips alone, or loaded from ``file`` where it was trained before.

    Short clips are followed by silence in half of the windows and by other clips of their kind in the other half: hits
    and notes would be known by the silence otherwise.
    """
    if file.is_file():
        return load_listener(file)
    torch.manual_seed(0)
    listener = Listener()
    optimizer = torch.optim.AdamW(listener.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    streams = [iter(Windows(corpus, SAMPLES // 160, seed=7 + fill, fill=fill)) for fill in (False, True)]
    for _ in tqdm(range(steps), desc="listener"):
        items = [next(streams[number % 2]) for number in range(batch)]
        mel = log_mel(torch.stack([item["audio"] for item in items]))
        loss = F.cross_entropy(listener(mel), torch.tensor([KINDS.index(item["kind"]) for item in items]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(listener.state_dict(), file)
    return listener.eval()


def real_clips(corpus: Corpus, per_kind: int = 64) -> dict[str, torch.Tensor]:
    """Validation audio by kind: (n, SAMPLES), n at most ``per_kind``."""
    found: dict[str, list[torch.Tensor]] = {kind: [] for kind in KINDS}
    for clip, audio in validation(corpus, SECONDS, per_kind):
        found[clip.kind].append(whole(audio))
    return {kind: torch.stack(clips).float() for kind, clips in found.items()}


@torch.no_grad()
def named(listener: Listener, audio: torch.Tensor) -> list[str]:
    """(n, SAMPLES) -> the kind that the listener hears in each."""
    return [KINDS[index] for index in listener(log_mel(audio)).argmax(dim=1).tolist()]
