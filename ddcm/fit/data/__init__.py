"""Latents on disk: encoded once, in shards or packed, and shared out to ranks."""

from typing import Any

MODULES = {"LatentData": "ddcm.fit.data.latent_data", "StreamedLatents": "ddcm.fit.data.streaming"}


def __getattr__(name: str) -> Any:  # lazy: reading a manifest must not import lightning
    from importlib import import_module

    if name in MODULES:
        return getattr(import_module(MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
