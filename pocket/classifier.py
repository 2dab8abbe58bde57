"""A small classifier that names the kind of a sound from its mel: the judge of what the backbone generates."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from ddcm.audio.mel import log_mel
from ddcm.errors import UserError
from pocket.batches import Windows, validation
from pocket.corpus import KINDS, Clip, Corpus

SECONDS = 5.12
SAMPLES = round(SECONDS * 16000)


class Classifier(nn.Module):
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
        features = self.blocks((mel - loudest).clamp(min=-9.0) / 3 + 1)  # 78 dB below the loudest is silence
        return self.head(torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1))


def pad_or_cut(audio: np.ndarray) -> torch.Tensor:
    """Audio of any length -> (SAMPLES,), cut or followed by silence, as the classifier was trained."""
    audio = torch.as_tensor(audio)[:SAMPLES]
    return F.pad(audio, (0, SAMPLES - len(audio)))


def load_classifier(file: Path) -> Classifier:
    """
    Raises:
        UserError: the weights are those of a classifier of another form.
    """
    classifier = Classifier()
    try:
        classifier.load_state_dict(torch.load(file, weights_only=True))
    except RuntimeError as error:
        raise UserError(f"{file} is of another classifier: remove it, and it is trained anew") from error
    return classifier.eval()


def train_classifier(corpus: Corpus, file: Path, steps: int = 2500, batch: int = 64, workers: int = 0) -> Classifier:
    """Train on the training clips alone, on a GPU where there is one; or load ``file``, an earlier result.

    Short clips are followed by silence in half of the windows and by other clips of their kind in the other half: hits
    and notes would be known by the silence otherwise. ``workers`` processes draw the windows of each half.
    """
    if file.is_file():
        return load_classifier(file)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier = Classifier().to(device)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=3e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    halves = [Windows(corpus, SAMPLES // 160, seed=7 + fill, fill=fill) for fill in (False, True)]
    loaders = [iter(DataLoader(half, batch_size=batch // 2, num_workers=workers)) for half in halves]
    for _ in tqdm(range(steps), desc="classifier"):
        parts = [next(loader) for loader in loaders]
        mel = log_mel(torch.cat([part["audio"] for part in parts]).to(device))
        kinds = torch.tensor([KINDS.index(kind) for part in parts for kind in part["kind"]], device=device)
        loss = F.cross_entropy(classifier(mel), kinds, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(classifier.cpu().state_dict(), file)
    return classifier.eval()


def real_clips(corpus: Corpus, per_kind: int = 64, pool: str = "first") -> dict[str, list[torch.Tensor]]:
    """Validation audio of a pool by kind: of each clip its pieces (n, SAMPLES), at most ``per_kind`` in all."""
    pieces: dict[str, dict[Clip, list[torch.Tensor]]] = {kind: {} for kind in KINDS}
    for clip, audio in validation(corpus, SECONDS, per_kind, pool):
        pieces[clip.kind].setdefault(clip, []).append(pad_or_cut(audio).float())
    return {kind: [torch.stack(own) for own in clips.values()] for kind, clips in pieces.items() if clips}


@torch.no_grad()
def rate_kinds(classifier: Classifier, audio: torch.Tensor) -> torch.Tensor:
    """(n, SAMPLES) -> probabilities of KINDS (n, 4)."""
    return torch.cat([classifier(log_mel(part)).softmax(dim=1) for part in audio.split(32)])


def name_kinds(classifier: Classifier, audio: torch.Tensor) -> list[str]:
    """(n, SAMPLES) -> the kind of each."""
    return [KINDS[index] for index in rate_kinds(classifier, audio).argmax(dim=1).tolist()]


def name_clip(classifier: Classifier, pieces: torch.Tensor) -> str:
    """(n, SAMPLES), the pieces of one clip -> its kind, by the mean of their probabilities."""
    return KINDS[int(rate_kinds(classifier, pieces).mean(dim=0).argmax())]
