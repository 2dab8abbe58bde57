"""At the end of a fit: the best codebook, exported for everyone else, and a summary."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from ddcm.fit.module import CodebookModule
from ddcm.quantize.pretrained import Codebook, load_codebook

BEST = "val/quantisation_error"
FIGURES = ("quantisation_error", "denoising_error", "usage", "perplexity", "bits_per_cell", "kbps")


class ExportCodebook(L.Callback):
    """Exports the best checkpoint to ``<default_root_dir>/codebook``: that with the smallest ``--best.monitor``, by
    default ``val/quantisation_error``."""

    def __init__(self) -> None:
        self._measured: dict[int, dict[str, float]] = {}

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        found = {name: trainer.callback_metrics.get(f"val/{name}") for name in FIGURES}
        self._measured[trainer.global_step] = {k: float(v) for k, v in found.items() if v is not None}

    def state_dict(self) -> dict:
        return {"measured": self._measured}  # a resumed fit may end with a best from before

    def load_state_dict(self, state: dict) -> None:
        self._measured = dict(state["measured"])

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, CodebookModule)
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it
            return
        codebook, step = _best(trainer, module)
        start, end = module.start_figures, self._measured.get(step, {})
        extra = {"step": step, **{f"{name}_start": value for name, value in start.items()}, **end}
        folder = Path(trainer.default_root_dir) / "codebook"
        Codebook(
            codebook.quantizer, codebook.backbone_name, codebook.latent_digest, {**codebook.config, "fit": extra}
        ).save_pretrained(folder)
        print(_table(start, end, step))
        print(f"codebook: {folder}")


def _best(trainer: L.Trainer, module: CodebookModule) -> tuple[Codebook, int]:
    """The best checkpoint's codebook and its step; this moment's where none was validated."""
    for callback in trainer.checkpoint_callbacks:
        if not isinstance(callback, ModelCheckpoint) or not callback.monitor:
            continue
        path = callback.best_model_path
        if Path(path).is_file():
            return load_codebook(path), torch.load(path, map_location="cpu", weights_only=True)["global_step"]
    config = {**module.description, "fit": {}}
    return Codebook(module.quantizer, config["backbone"], config["latent_digest"], config), trainer.global_step


def _table(start: dict[str, float], end: dict[str, float], step: int) -> str:
    rows = [f"{'validation':20} {'k-means start':>14} {f'step {step}':>14}"]
    for name in (name for name in FIGURES if name in start or name in end):
        cells = [f"{figures[name]:14.5g}" if name in figures else f"{'-':>14}" for figures in (start, end)]
        rows.append(f"{name:20} {cells[0]} {cells[1]}")
    return "\n".join(rows)
