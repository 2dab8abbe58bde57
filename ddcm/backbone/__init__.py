"""Backbones: ``load`` one by hub name or folder; the contract is in ``base``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from ddcm.backbone.base import Backbone, Condition
from ddcm.errors import UserError
from ddcm.runtime.files import resolve_shipped

__all__ = ["Backbone", "Condition", "load"]


def load(name: str | Path, device: str = "cpu", dtype: str = "float32", heads: str = "hub", **options) -> Backbone:
    """A backbone by name.

    Args:
        name: a diffusers folder, a hub name such as ``cvssp/audioldm2-music`` (only the parts that are needed
            are downloaded, and kept by the hub's cache), ``module:Class`` of one's own, which is imported and
            called with all of the following, or ``tiny`` (random weights, for tests).
        device: as for ``FrozenBackbone``, and so are the following.
        dtype: of the UNet.
        heads: ``hub`` or ``original``.
        options: ``vae_dtype``, ``null`` and ``compiled``.

    Raises:
        UserError: not found, or not an AudioLDM2.
    """
    from ddcm.backbone.audioldm2 import from_folder
    from ddcm.backbone.latent_diffusion import FrozenBackbone
    from ddcm.backbone.tiny import tiny_backbone

    if str(name) == "tiny":
        return tiny_backbone(device=device, dtype=dtype, **options)
    if ":" in str(name) and not resolve_shipped(name).exists():
        return _own(str(name))(device=device, dtype=dtype, heads=heads, **options)
    folder, fetch = _locate(str(name))
    return FrozenBackbone(from_folder(folder, fetch, heads), str(name), device, dtype, heads=heads, **options)


def _own(name: str) -> Callable[..., Backbone]:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"backbone {name}: {error}; give module:Class of what Python can import from here") from error


def _locate(name: str):
    """A local folder and a function that brings a component's files into it."""
    if resolve_shipped(name).is_dir():
        return resolve_shipped(name), lambda part: None
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(f"backbone {name} is neither a folder nor a hub name such as cvssp/audioldm2-music")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    def get(*patterns: str) -> Path:
        try:  # .bin twins of the weights are left out: half the download, and nothing to unpickle
            return Path(snapshot_download(name, allow_patterns=list(patterns), ignore_patterns=["*.bin"]))
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"backbone {name} could not be had from the hub ({reason})") from error

    return get("model_index.json"), lambda part: get(f"{part}/*") and None
