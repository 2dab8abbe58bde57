"""At the end of a fit: the export of the best codebook, and a table of its metrics."""

import copy
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from ddcm.errors import UserError
from ddcm.fit.module import CodebookModule
from ddcm.quantize import Quantizer
from ddcm.quantize.pretrained import DAMAGED, Codebook, load_codebook, read_checkpoint

MONITOR = "val/quantisation_error"
METRICS = ("quantisation_error", "denoising_error", "usage", "perplexity", "bits_per_cell", "kbps")


class ExportCodebook(L.Callback):
    """Exports the best checkpoint to ``<default_root_dir>/codebook``: the one with the smallest ``--best.monitor``, by
    default ``val/quantisation_error``. Where the start was better, it exports the start and says so."""

    def __init__(self) -> None:
        self._metrics: dict[int, dict[str, float]] = {}  # by step
        self._start: dict[str, torch.Tensor] = {}  # state of the quantizer before the first step

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_index: int) -> None:
        assert isinstance(module, CodebookModule)
        if trainer.global_step == trainer.current_epoch == batch_index == 0:
            self._start = {name: x.detach().cpu().clone() for name, x in module.quantizer.state_dict().items()}

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        logged = {name: trainer.callback_metrics.get(f"val/{name}") for name in METRICS}
        self._metrics[trainer.global_step] = {k: float(v) for k, v in logged.items() if v is not None}

    def state_dict(self) -> dict:
        return {"measured": self._metrics, "start": self._start}  # the best step of a resumed fit may lie before it

    def load_state_dict(self, state: dict) -> None:
        self._metrics = {
            int(step): {name: float(value) for name, value in metrics.items() if name in METRICS}
            for step, metrics in state["measured"].items()
        }
        self._start = state.get("start", {})  # older checkpoints lack it

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write the last checkpoint, where no validation has just done so."""
        for callback in trainer.checkpoint_callbacks:
            last = isinstance(callback, ModelCheckpoint) and callback.filename == "last" and callback.dirpath
            if last and not trainer.fast_dev_run and trainer.global_step not in self._metrics:  # type: ignore[attr-defined]
                trainer.save_checkpoint(Path(last) / "last.ckpt")

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, CodebookModule)
        if trainer.global_step == 0:
            raise UserError("no training step: nothing is exported; raise --trainer.max_steps or another limit above 0")
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it
            return
        best, step = _load_best(trainer, module)
        start, end = module.start_metrics, self._metrics.get(step, {})
        folder = Path(trainer.default_root_dir) / "codebook"
        print(_format_table(start, end, step))
        if (worse := _compare(trainer, start, end)) and (kept := _restore(module.quantizer, self._start)):
            print(f"the fit did not improve on its start: {worse}; the start is exported")
            best, step, end = kept, 0, start
        fit = {"step": step, **{f"{name}_start": value for name, value in start.items()}, **end}
        config = {**module.description, "fit": fit}  # nothing of the checkpoint's own description
        Codebook(best, config["backbone"], config["latent_digest"], config).save_pretrained(folder)
        print(f"codebook: {folder}")


def _restore(quantizer: Quantizer, state: Any) -> Quantizer | None:
    """A copy of the quantizer in a state that a checkpoint brought; None where it does not fit."""
    quantizer = copy.deepcopy(quantizer)
    try:
        quantizer.load_state_dict(state)
        return quantizer if all(x.isfinite().all() for x in quantizer.state_dict().values()) else None
    except DAMAGED:
        return None


def _compare(trainer: L.Trainer, start: dict[str, float], end: dict[str, float]) -> str:
    """The monitored metric at the start and at the best step, where it became worse; else nothing."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            name = callback.monitor.removeprefix("val/")
            before, after = start.get(name, 0.0), end.get(name, 0.0)
            if (after > before) if callback.mode == "min" else (after < before):
                return f"{name} {before:.5g} became {after:.5g}" if name in start and name in end else ""
    return ""


def _load_best(trainer: L.Trainer, module: CodebookModule) -> tuple[Quantizer, int]:
    """The best checkpoint's quantizer and step; without a validation, the current ones."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and Path(callback.best_model_path).is_file():
            path = Path(callback.best_model_path)
            return load_codebook(path).quantizer, read_checkpoint(path)["global_step"]
    return module.quantizer, trainer.global_step


def _format_table(start: dict[str, float], end: dict[str, float], step: int) -> str:
    rows = [f"{'validation':20} {'k-means start':>14} {f'step {step}':>14}"]
    for name in (name for name in METRICS if name in start or name in end):
        cells = [f"{metrics[name]:14.5g}" if name in metrics else f"{'-':>14}" for metrics in (start, end)]
        rows.append(f"{name:20} {cells[0]} {cells[1]}")
    return "\n".join(rows)
