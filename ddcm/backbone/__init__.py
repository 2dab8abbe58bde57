"""Backbones: ``load`` one by hub name or folder; the contract is in ``base``."""

import pkgutil
from pathlib import Path
from typing import Any

from ddcm.backbone.base import Backbone, Condition
from ddcm.errors import UserError
from ddcm.runtime.files import download, is_hub_name, resolve_model

__all__ = ["Backbone", "Condition", "load"]


def load(name: str | Path, device: Any = "cpu", dtype: Any = "float32", heads: str = "hub", **options) -> Backbone:
    """A backbone by name.

    Args:
        name: ``pocket``, the embedded one; a diffusers folder; a hub name such as ``cvssp/audioldm2-music`` (only the
            components that are needed are downloaded, into the hub's cache); ``module:Class`` of one's own, which is
            imported and called with all of the following; or ``tiny`` (random weights, for tests).
        device: as for ``FrozenBackbone``, and so are the following.
        dtype: of the UNet: ``torch.float16``, or its name.
        heads: ``hub`` or ``original``.
        options: ``vae_dtype``, ``null`` and ``compiled``.

    Raises UserError: not found, or not an AudioLDM2.
    """
    from ddcm.backbone.audioldm2 import FolderParts
    from ddcm.backbone.latent_diffusion import FrozenBackbone
    from ddcm.backbone.text import ModelFolder
    from ddcm.backbone.tiny import tiny_backbone

    name = str(name)
    if name == "tiny":
        return tiny_backbone(device=device, dtype=dtype, **options)
    path = resolve_model(name)
    if path.is_dir():
        folder = ModelFolder(path)
    elif ":" in name and not path.exists():
        try:
            cls = pkgutil.resolve_name(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(f"backbone {name}: {error}; give module:Class of what Python can import") from error
        return cls(device=device, dtype=dtype, heads=heads, **options)
    elif is_hub_name(name):
        root = download("backbone", name, ["model_index.json"])
        folder = ModelFolder(root, lambda component: download("backbone", name, [f"{component}/*"]))
    else:
        raise UserError(
            f"backbone {name} is neither a folder nor a hub name; give pocket, or one such as cvssp/audioldm2-music"
        )
    return FrozenBackbone(FolderParts(folder, heads), name, device, dtype, heads=heads, **options)
