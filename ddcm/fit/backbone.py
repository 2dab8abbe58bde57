"""The frozen backbone of a training process, outside every module tree."""

import functools

from ddcm.backbone import Backbone, load


@functools.lru_cache(maxsize=1)
def load_frozen_backbone(name: str, device: str) -> Backbone:
    """The backbone in float32, loaded once: the data module encodes with it, the module decodes.

    It is not an ``nn.Module``, so it is in no checkpoint, no optimizer and no DDP bucket.
    """
    return load(name, device=device)
