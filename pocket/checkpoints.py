"""What a stage left in a runs folder: its last checkpoint, the weights of a part in it, and how long it was trained."""

from pathlib import Path

import torch
from lightning import LightningModule

from ddcm.errors import UserError


def last(runs: Path, stage: str) -> dict:
    return torch.load(runs / stage / "last.ckpt", weights_only=True, map_location="cpu")


def spent(saved: dict) -> dict[str, float]:
    """Optimiser steps and minutes of a run, with those of the run whose weights it began with."""
    budget = next(state for name, state in saved["callbacks"].items() if name.startswith("TimeBudget"))
    # Manual optimisation counts a step for each of two optimisers once the discriminators have joined.
    steps = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"]
    before = budget.get("before", {"steps": 0, "minutes": 0.0})
    return {"steps": before["steps"] + steps, "minutes": round(before["minutes"] + budget["spent_s"] / 60, 1)}


def begin_with(module: LightningModule, saved: dict) -> None:
    """Give a stage the weights of a checkpoint, which may lack the optimizer, the discriminators and the weights that
    are averaged: the average stands for them.

    Raises:
        UserError: the checkpoint is of another stage or another form.
    """
    state = saved["state_dict"]
    averaged = {f"parts.{name.removeprefix('ema.')}": x for name, x in state.items() if name.startswith("ema.")}
    module.on_load_checkpoint(saved)
    try:
        missing, unexpected = module.load_state_dict({**averaged, **state}, strict=False)
    except RuntimeError as error:
        raise UserError(f"these weights are of another form: {str(error).splitlines()[-1].strip()}") from error
    if unexpected or [name for name in missing if not name.startswith("discriminators.")]:
        raise UserError(f"these weights are of another stage: {', '.join([*unexpected, *missing][:3])}")


def weights(saved: dict, prefix: str) -> dict[str, torch.Tensor]:
    """Those whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): x for name, x in saved["state_dict"].items() if name.startswith(prefix)}


def width(saved: dict) -> dict[str, float]:
    """The width that the part was trained at, as an argument; none where the checkpoint is older than widths are."""
    return {name: value for name, value in saved.get("hyper_parameters", {}).items() if name == "width"}
