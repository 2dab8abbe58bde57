"""At the end of a fit: the export of the best codebook, and a table of its metrics."""

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from ddcm.errors import UserError
from ddcm.fit.module import CodebookModule
from ddcm.quantize import Quantizer
from ddcm.quantize.pretrained import Codebook, load_codebook, read_checkpoint

MONITOR = "val/quantisation_error"
METRICS = ("quantisation_error", "denoising_error", "usage", "perplexity", "bits_per_cell", "kbps")


class ExportCodebook(L.Callback):
    """Exports the best checkpoint to ``<default_root_dir>/codebook``: the one with the smallest ``--best.monitor``, by
    default ``val/quantisation_error``."""

    def __init__(self) -> None:
        self._metrics: dict[int, dict[str, float]] = {}  # by step

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        logged = {name: trainer.callback_metrics.get(f"val/{name}") for name in METRICS}
        self._metrics[trainer.global_step] = {k: float(v) for k, v in logged.items() if v is not None}

    def state_dict(self) -> dict:
        return {"measured": self._metrics}  # the best step of a resumed fit may lie before it

    def load_state_dict(self, state: dict) -> None:
        self._metrics = {
            int(step): {name: float(value) for name, value in metrics.items() if name in METRICS}
            for step, metrics in state["measured"].items()
        }

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
        fit = {"step": step, **{f"{name}_start": value for name, value in start.items()}, **end}
        folder = Path(trainer.default_root_dir) / "codebook"
        config = {**module.description, "fit": fit}  # nothing of the checkpoint's own description
        Codebook(best, config["backbone"], config["latent_digest"], config).save_pretrained(folder)
        print(_format_table(start, end, step))
        print(f"codebook: {folder}")


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
