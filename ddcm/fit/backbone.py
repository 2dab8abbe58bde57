"""The frozen backbone of a training process: one, whoever asks, and outside every module tree."""

from __future__ import annotations

import functools

from ddcm.backbone import Backbone, load


@functools.lru_cache(maxsize=1)
def frozen_backbone(name: str, device: str) -> Backbone:
    """The data module encodes with it, the module decodes: loaded once, in float32, parts on first use.

    It is no ``nn.Module``, so it is in no checkpoint, no optimizer and no DDP bucket.
    """
    return load(name, device=device)
