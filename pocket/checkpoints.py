"""What a stage left in a runs folder: its last checkpoint, and the weights of a part in it."""

from __future__ import annotations

from pathlib import Path

import torch


def last(runs: Path, stage: str) -> dict:
    return torch.load(runs / stage / "last.ckpt", weights_only=True, map_location="cpu")


def weights(saved: dict, prefix: str) -> dict[str, torch.Tensor]:
    """Those whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): x for name, x in saved["state_dict"].items() if name.startswith(prefix)}


def width(saved: dict) -> dict[str, float]:
    """The width that the part was trained at, as an argument; none where the checkpoint is older than widths are."""
    return {name: value for name, value in saved.get("hyper_parameters", {}).items() if name == "width"}
