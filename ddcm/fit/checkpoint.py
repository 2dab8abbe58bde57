"""What a fit takes from a checkpoint: tensors and numbers that fit this run; no options, names to import or paths."""

import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from packaging.version import InvalidVersion, Version

from ddcm.errors import UserError
from ddcm.quantize.pretrained import DAMAGED, list_tensors, read_checkpoint
from ddcm.quantize.spec import rename_options

log = logging.getLogger(__name__)

CODEBOOK = {"state_dict": dict, "ddcm": dict}
RUN = {
    "pytorch-lightning_version": str, "epoch": int, "global_step": int, "loops": dict, "callbacks": dict,
    "optimizer_states": list, "lr_schedulers": list,
}  # fmt: skip
OPTIONS = [
    f"{prefix}{name}" for prefix in ("", "datamodule_") for name in ("hyper_parameters", "hparams_name", "hparams_type")
] + ["hparams", "module_arguments"]
"""Entries from which Lightning would take arguments and class names."""
COUNTED = re.compile("progress|^position$")
PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")
STEPS = ("fit_loop", "epoch_loop.automatic_optimization.optim_progress", "optimizer", "step", "total", "completed")


def check_entries(checkpoint: dict[str, Any], path: str | Path, resumes: bool) -> None:
    """Refuse a checkpoint without the entries that a fit needs, or with one of another type.

    Args:
        resumes: whether training goes on from it, not only its codebook is used.

    Raises UserError: with the name of the file and of the entry.
    """
    for name, kind in (CODEBOOK | (RUN if resumes else {})).items():
        if not isinstance(checkpoint.get(name), kind):
            reason = "missing" if name not in checkpoint else f"not a {kind.__name__}"
            raise UserError(f"{path} is no checkpoint of python train.py fit, or damaged: {name} is {reason}")
    try:
        wrong = next(_find_damage(checkpoint, resumes), None)
    except DAMAGED as error:
        raise UserError(f"{path} is damaged ({type(error).__name__})") from error
    if wrong is not None:
        raise UserError(f"{path} is damaged: {wrong}")


def _find_damage(checkpoint: dict[str, Any], resumes: bool) -> Iterator[str]:
    about, state = checkpoint["ddcm"], checkpoint["state_dict"]
    if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()):
        yield "state_dict holds more than tensors"
    for name in ("state_dict", "optimizer_states") if resumes else ("state_dict",):
        if not all(tensor.isfinite().all() for tensor in list_tensors(checkpoint[name])):
            yield f"NaN or infinite numbers in {name}"
    if not isinstance(about["latent_digest"], str) or not isinstance(about["quantizer"], dict):
        yield "ddcm does not describe a codebook"
    if not all(isinstance(key, str) and _is_number(value) for key, value in about["fit"].items()):
        yield "ddcm has metrics that are no numbers"
    if not resumes:
        return
    try:
        Version(checkpoint["pytorch-lightning_version"])
    except InvalidVersion:
        yield "pytorch-lightning_version is no version"
    if not all(isinstance(state, dict) for state in checkpoint["callbacks"].values()):
        yield "callbacks have no states"
    steps: Any = checkpoint["loops"]
    for name in STEPS:
        steps = steps[name]
    if steps != checkpoint["global_step"] or checkpoint["epoch"] < 0 or not _counts(checkpoint["loops"]["fit_loop"]):
        yield "global_step, epoch and loops do not fit together"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _counts(value: Any, name: str = "") -> bool:
    """Whether all leaves of counters, and positions in the data, are whole numbers."""
    if isinstance(value, dict):
        return all(_counts(item, key if COUNTED.search(str(key)) else name) for key, item in value.items())
    if isinstance(value, list):
        return all(_counts(item) for item in value)
    return not name or (isinstance(value, int) and value >= 0)


def check_state(checkpoint: dict[str, Any], module: torch.nn.Module, path: str | Path) -> None:
    """Refuse weights of other names or shapes than those of ``module``. Raises UserError: with the name of the file."""
    shapes, own = (
        {name: tuple(x.shape) for name, x in state.items()} for state in (checkpoint["state_dict"], module.state_dict())
    )
    shapes = {name: () for name in own if name.endswith("initialised")} | shapes  # older checkpoints lack it
    differing = sorted(name for name in own.keys() | shapes.keys() if own.get(name) != shapes.get(name))
    if differing:
        name = differing[0]
        raise UserError(
            f"{path} does not fit this run: {name} has shape {shapes.get(name, 'none')}, here {own.get(name, 'none')}"
        )


def adapt_checkpoint(
    checkpoint: dict[str, Any], path: str, module: torch.nn.Module, description: dict[str, Any], resumes: bool
) -> None:
    """Remove the options of a checkpoint that Lightning loads into ``module``, of this ``description``.

    Raises:
        UserError: as ``check_entries`` and ``check_state``; or of other latents or another quantizer.
    """
    for name in OPTIONS:
        checkpoint.pop(name, None)
    check_entries(checkpoint, path, resumes)
    for key, what in (("latent_digest", "latents"), ("quantizer", "quantizer")):
        saved = checkpoint["ddcm"][key]
        if rename_options(saved) != description[key]:
            raise UserError(f"--ckpt_path was fitted with {what} {saved}, this run has {description[key]}")
    check_state(checkpoint, module, path)


def restore_optimizer(checkpoint: dict[str, Any], made: Any, path: str | Path) -> dict[str, list]:
    """``optimizer_states`` and ``lr_schedulers`` with moments and counts of the checkpoint, and options of this run.

    Args:
        made: what ``configure_optimizers`` returns: an optimizer, or a dict with a ``LambdaLR`` for each step. Of other
            optimizers and schedules nothing is returned.

    Raises UserError: moments are missing or do not fit the parameters, or the schedule is at another step.
    """
    optimizer, schedule = (made, None) if not isinstance(made, dict) else (made["optimizer"], made["lr_scheduler"])
    schedule = schedule["scheduler"] if isinstance(schedule, dict) else schedule
    if not isinstance(optimizer, torch.optim.Optimizer):
        return {}
    own, steps = optimizer.state_dict(), checkpoint["global_step"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    needed = {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimizer, torch.optim.Adam) and steps else set()
    try:
        (saved,) = checkpoint["optimizer_states"]
        state, groups = saved["state"], list(zip(own["param_groups"], saved["param_groups"], strict=True))
        fits = all(_fits(x, parameters[number]) for number, values in state.items() for x in values.values())
        fits &= all(needed <= state.get(number, {}).keys() for number in range(len(parameters)))
        fits &= all(mine["params"] == group["params"] for mine, group in groups)
        options = [mine | {"lr": float(group["lr"])} for mine, group in groups]
        entries: dict[str, list] = {"optimizer_states": [{"state": state, "param_groups": options}]}
        if isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
            fits &= checkpoint["lr_schedulers"][0]["last_epoch"] == steps
            position = {"last_epoch": steps, "_step_count": steps + 1, "_last_lr": [group["lr"] for group in options]}
            entries["lr_schedulers"] = [schedule.state_dict() | position]
    except DAMAGED:
        fits = False
    if not fits:
        raise UserError(
            f"{path} is damaged, or of another fit: its optimizer_states or lr_schedulers do not fit this one"
        )
    return entries


def _fits(value: Any, parameter: torch.Tensor) -> bool:
    if isinstance(value, torch.Tensor):
        return value.shape in ((), parameter.shape)
    return value is None or _is_number(value)


def restore_callbacks(checkpoint: dict[str, Any], callbacks: Sequence[Callback], path: str | Path) -> dict[str, Any]:
    """The states of callbacks in this run: with its own options, and paths of files that lie beside the checkpoint. A
    run may have been moved or copied, so of a path in the checkpoint only the file's name counts."""
    states = dict(checkpoint["callbacks"])
    if not states.keys() & {callback.state_key for callback in callbacks} and any(c.state_dict() for c in callbacks):
        raise UserError(f"{path} is damaged: callbacks are not those of a fit")
    for callback in callbacks:
        state = states.get(callback.state_key)
        if state is not None and isinstance(callback, ModelCheckpoint):
            states[callback.state_key] = _relocate(state, callback, str(path))
        elif state is not None and isinstance(callback, EarlyStopping):
            states[callback.state_key] = state | {"patience": callback.patience}
    return states


def _relocate(state: dict[str, Any], callback: ModelCheckpoint, path: str) -> dict[str, Any]:
    """The state of a ``ModelCheckpoint`` with the paths that its files have now; without those that are gone."""
    folders = list(dict.fromkeys([os.path.dirname(path) or ".", str(callback.dirpath)]))  # or URLs

    def find(name: Any) -> str:
        own = PureWindowsPath(str(name)).name  # of paths of any system
        files = [os.path.join(folder, own) for folder in folders if own.endswith(callback.FILE_EXTENSION)]
        return next((file for file in files if get_filesystem(file).isfile(file)), "")

    best = find(state.get("best_model_path"))
    if callback.monitor and best and not _is_best(best, callback, state.get("best_model_score")):
        best = ""
    if callback.monitor and state.get("best_model_path") and not best:
        log.warning(
            "%s: the best checkpoint so far, %s, is in neither of %s: the best from here on counts",
            path, PureWindowsPath(str(state["best_model_path"])).name, ", ".join(folders),
        )  # fmt: skip
        return {"dirpath": callback.dirpath, "best_model_score": None, "best_model_path": ""}
    models = {find(name): score for name, score in dict(state.get("best_k_models") or {}).items()}
    models.pop("", None)
    paths = {name: find(state.get(name)) for name in PATHS} | {"best_model_path": best}
    return state | paths | {"dirpath": callback.dirpath, "best_k_models": models}


def _is_best(path: str, callback: ModelCheckpoint, score: Any) -> bool:
    """Whether a file is the best checkpoint of that score, and not one of another run under its name."""
    try:
        return "://" in path or bool(
            read_checkpoint(Path(path))["callbacks"][callback.state_key]["best_model_score"] == score
        )
    except DAMAGED:
        return False
