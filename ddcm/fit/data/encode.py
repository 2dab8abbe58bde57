"""The frozen backbone of a training process, and the latents of an audio file by its VAE."""

import functools
from pathlib import Path

import torch

from ddcm.audio.files import read_audio
from ddcm.audio.level import normalise_level
from ddcm.audio.mel import log_mel
from ddcm.backbone import Backbone, load
from ddcm.errors import UserError

WINDOW_S = 10.24  # the length that AudioLDM2 was trained on
BATCH = 4  # windows encoded at once


@functools.lru_cache(maxsize=1)
def load_frozen_backbone(name: str, device: str) -> Backbone:
    """The backbone in float32, loaded once: the data module encodes with it, the module decodes.

    It is not an ``nn.Module``, so it is in no checkpoint, no optimizer and no DDP bucket.
    """
    return load(name, device=device)


@torch.no_grad()
def encode_file(path: Path, backbone: Backbone) -> torch.Tensor:
    """Encode an audio file to z (frames, C, F) float16, 25 frames a second.

    The level of the whole file is normalised. Windows of 10.24 s are encoded apart. The waveform of the last one is
    padded with silence to whole latent frames, because 0 in the log-mel is not silence. Raises UserError: the file is
    not readable as audio, or its latents are NaN, infinite or beyond float16.
    """
    spec = backbone.mel_spec
    audio, _ = normalise_level(read_audio(path, spec.sample_rate))
    frame = 4 * spec.hop
    window = round(WINDOW_S * spec.sample_rate / frame) * frame
    audio = torch.nn.functional.pad(audio, (0, -len(audio) % frame))
    whole_windows = audio[: len(audio) // window * window].view(-1, window)
    rest = audio[whole_windows.numel() :][None]
    batches = [*whole_windows.split(BATCH), *([rest] if rest.numel() else [])] if len(audio) >= window else [rest]
    parts = [backbone.encode(log_mel(batch.to(backbone.device), spec)) for batch in batches]
    z = torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts]).cpu()  # [frames, C, F]
    if not torch.isfinite(z.half()).all():
        raise UserError(f"{path}: its latents do not fit float16")
    return z.half()
