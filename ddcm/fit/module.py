"""The training of one quantizer."""

from __future__ import annotations

import functools
import time
from typing import Any

import lightning as L
import torch
from torch import nn

from ddcm.backbone import Backbone
from ddcm.errors import UserError
from ddcm.fit.backbone import frozen_backbone
from ddcm.fit.denoising import DenoisingTally, diffusion_loss
from ddcm.fit.metrics import CodeTally
from ddcm.fit.tensorboard import mel_difference_db, show, show_codebook
from ddcm.quantize import HardQuantizer, Quantized, Quantizer
from ddcm.quantize.base import to_cells
from ddcm.quantize.pretrained import Codebook, describe, load_codebook
from ddcm.quantize.spec import rename_options, to_spec
from ddcm.runtime import distributed

LISTEN_WINDOWS = 4  # decoded at each validation for val/log_mel_mae_db


class CodebookModule(L.LightningModule):
    """Fits a quantizer's codebook to latents z (B, C, L, F) of a frozen backbone.

    The loss is the sum of the quantizer's own terms. Its commitment term pulls latents to their atoms; the
    encoder is frozen and latents come from a cache, so it moves nothing, unless the quantizer has something
    that learns before its codebook (a projection). It is computed and logged so that runs can be compared.

    The backbone is in neither module tree nor checkpoints; checkpoints name it by its latent digest and are
    refused on another. Checkpoints hold tensors and plain containers only (``weights_only`` loads them).

    A quantizer that learns by EMA has no gradient, which Lightning and DDP both refuse. It gets one idle scalar
    and SGD of rate zero: steps are counted, checkpoints written, and DDP has something to synchronise.

    Args:
        quantizer: what to fit; by default ``HardQuantizer()``, 1024 atoms of 8 numbers.
        backbone: hub name or folder of the backbone.
        learning_rate: of Adam at the start; falls linearly to zero over ``--trainer.max_steps``, because at a
            constant rate the atoms keep trembling around their places. EMA quantizers have no use for it.
        diffusion_weight: of the error of the frozen UNet in denoising noised quantised latents; 0 leaves the
            UNet unloaded. Needs a quantizer that learns by gradient. Validation then has ``val/denoising_error``,
            which is what the best checkpoint should be chosen by: see ``configs/diffusion.yaml``.
        diffusion_windows: of each batch that go through the UNet, the first ones; it costs more than all the rest.
        init_batches: training batches of all ranks whose cells k-means starts the codebook from.
        init_from: an exported codebook (folder, hub name or ``.ckpt``) of the same shape to start from instead.
        listen_every: validations between pictures and sound in TensorBoard; 0 for none.
        seed: of k-means and of the diffusion term's noise.
    """

    def __init__(
        self,
        quantizer: Quantizer | None = None,
        backbone: str = "checkpoints/pocket",
        learning_rate: float = 1e-2,
        diffusion_weight: float = 0.0,
        diffusion_windows: int = 4,
        init_batches: int = 4,
        init_from: str | None = None,
        listen_every: int = 1,
        seed: int = 0,
    ):
        super().__init__()
        self.quantizer = HardQuantizer() if quantizer is None else quantizer
        self.backbone_name, self.learning_rate, self.diffusion_weight = backbone, learning_rate, diffusion_weight
        self.diffusion_windows = diffusion_windows
        self.init_batches, self.init_from, self.listen_every, self.seed = init_batches, init_from, listen_every, seed
        learns = any(parameter.requires_grad for parameter in self.quantizer.parameters())
        if diffusion_weight > 0 and not learns:
            raise UserError("--model.diffusion_weight moves atoms by gradient; use it with learn: gradient")
        self.idle = None if learns else nn.Parameter(torch.zeros(()))
        self.start_figures: dict[str, float] = {}
        """Validation figures of the k-means start."""
        self._resumed = False
        self._validations = 0
        self._cells_a_step = 0

    @property
    def backbone(self) -> Backbone:
        return frozen_backbone(self.backbone_name, str(self.device))

    @property
    def description(self) -> dict[str, Any]:
        spec = self.backbone.mel_spec.to_dict()
        return describe(self.quantizer, self.backbone_name, self.backbone.latent_digest, spec)

    @property
    def cells_per_s(self) -> float:
        spec = self.backbone.mel_spec
        return spec.sample_rate / spec.hop / 4 * (spec.n_mels // 4)

    @property
    def _data(self) -> Any:
        """The data module, a ``LatentData``."""
        return self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it on the way

    def setup(self, stage: str) -> None:
        dim, channels = self.quantizer.embedding_dim, self.backbone.latent_channels
        if dim != channels:
            raise UserError(f"embedding_dim is {dim}, but latents of {self.backbone_name} have {channels} channels")

    def configure_optimizers(self):
        if self.idle is not None:
            return torch.optim.SGD([self.idle], lr=0.0)
        learned = [parameter for parameter in self.quantizer.parameters() if parameter.requires_grad]
        # An atom in the midst of its cells has a gradient of rounding alone, about 1e-9, which Adam's usual eps of 1e-8
        # would scale up to a step; those of atoms that have somewhere to go are above 1e-6.
        optimizer = torch.optim.Adam(learned, lr=self.learning_rate, eps=1e-7)
        steps = self.trainer.max_steps
        if steps <= 0:  # the end is not known: limited by epochs or time
            return optimizer
        falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": falling, "interval": "step"}}

    # The start.

    def on_train_start(self) -> None:
        self._clock = time.monotonic()
        settings = {"learning_rate": self.learning_rate, "diffusion_weight": self.diffusion_weight, "seed": self.seed}
        for logger in self.loggers:
            logger.log_hyperparams({**settings, **self.description})
        if self._resumed:
            return
        if self.init_from:
            self._start_from(load_codebook(self.init_from))
        else:
            self._initialise()
        self.start_figures = self._measure(self._data.val_dataloader())
        self._log_at_once({f"val/{name}_start": value for name, value in self.start_figures.items()}, 0)

    @torch.no_grad()
    def _initialise(self) -> None:
        """k-means on the first batches, in the order in which a single process would meet them."""
        stream, cells = self._data.train_stream(), []
        for _ in range(self.init_batches):
            z = next(stream)["z"].to(self.device)
            together = distributed.gather_rows(z.flatten(1)).reshape(-1, *z.shape[1:])
            cells.append(to_cells(together, self.quantizer.embedding_dim))
        count, size = sum(map(len, cells)), self.quantizer.codebook_size
        if size > count:
            raise UserError(
                f"codebook_size {size} is larger than the {count} cells that k-means starts from: lower it, raise "
                f"--model.init_batches (now {self.init_batches}) or bring more audio"
            )
        self.quantizer.initialise(torch.cat(cells), seed=self.seed)

    def _start_from(self, codebook: Codebook) -> None:
        codebook.check(self.backbone)
        try:
            self.quantizer.load_state_dict(codebook.quantizer.state_dict())
        except RuntimeError as error:
            found, wanted = (to_spec(quantizer) for quantizer in (codebook.quantizer, self.quantizer))
            raise UserError(f"--model.init_from {self.init_from} is {found}; this fit is of {wanted}") from error

    @torch.no_grad()
    def _measure(self, batches) -> dict[str, float]:
        self._start_tallies()
        self.quantizer.eval()
        for number, batch in enumerate(batches):
            z = batch["z"].to(self.device)
            self._tally(z, self.quantizer(z), number)
        self.quantizer.train()
        return self._tallied()

    def _start_tallies(self) -> None:
        self._codes = CodeTally(self.quantizer, self.device)
        self._denoised = DenoisingTally(self.backbone, self.diffusion_windows) if self.diffusion_weight > 0 else None

    def _tally(self, z: torch.Tensor, quantized: Quantized, number: int) -> None:
        self._codes.add(z, quantized)
        if self._denoised:
            self._denoised.add(quantized.z, number)

    def _tallied(self) -> dict[str, float]:
        """Figures of all ranks."""
        return self._codes.figures(self.cells_per_s) | (self._denoised.figures() if self._denoised else {})

    def _log_at_once(self, figures: dict[str, float], step: int) -> None:
        for logger in self.loggers:
            logger.log_metrics(figures, step)

    # Steps.

    def training_step(self, batch: dict, batch_index: int) -> torch.Tensor:
        quantized = self.quantizer(batch["z"])
        losses = dict(quantized.losses)
        if self.diffusion_weight > 0:
            passed, seed = quantized.z_q_codebook[: self.diffusion_windows], self.seed * 1_000_003 + self.global_step
            losses["diffusion"] = self.diffusion_weight * diffusion_loss(self.backbone, passed, seed)
        self.log_dict({f"train/{name}": value.detach() for name, value in (losses | quantized.metrics).items()})
        self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log("train/perplexity", quantized.perplexity, prog_bar=True)
        self.log("train/usage", quantized.usage)
        self._cells_a_step = batch["z"].numel() // batch["z"].shape[1] * self.trainer.world_size
        loss = functools.reduce(torch.add, losses.values())
        return loss if self.idle is None else loss.detach() + 0 * self.idle

    def on_train_batch_end(self, outputs, batch, batch_index: int) -> None:
        now = time.monotonic()
        self.log("train/cells_per_s", self._cells_a_step / (now - self._clock), prog_bar=True)
        self._clock = now

    def on_validation_epoch_start(self) -> None:
        self._start_tallies()

    def validation_step(self, batch: dict, batch_index: int) -> None:
        quantized = self.quantizer(batch["z"])
        self._tally(batch["z"], quantized, batch_index)
        if batch_index == 0 and self.trainer.is_global_zero:
            self._listen(batch["z"][:LISTEN_WINDOWS], quantized.z[:LISTEN_WINDOWS])

    def on_validation_epoch_end(self) -> None:
        self._log_figures("val")

    def _listen(self, before: torch.Tensor, after: torch.Tensor) -> None:
        self._mae_db, mels = mel_difference_db(self.backbone, before, after)
        due = self.listen_every and self._validations % self.listen_every == 0
        self._validations += 1
        for board in [getattr(logger, "experiment", None) for logger in self.loggers] if due else []:
            if hasattr(board, "add_figure"):
                show(board, self.backbone, mels, self.global_step)
                show_codebook(board, self.quantizer, before, self.global_step)

    def _log_figures(self, stage: str) -> None:
        figures = self._tallied()
        if self.trainer.is_global_zero:
            self.log(f"{stage}/log_mel_mae_db", self._mae_db, rank_zero_only=True)
        # The same number on every rank already; sync_dist only keeps Lightning from warning that it is not.
        for name, value in figures.items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "quantisation_error", sync_dist=True)
        if stage == "val":  # runs with other batch sizes and numbers of processes lie on one axis here
            thousands = self.global_step * self._cells_a_step // 1000
            self._log_at_once({"by_kilocells/quantisation_error": figures["quantisation_error"]}, thousands)

    on_test_epoch_start, test_step = on_validation_epoch_start, validation_step

    def on_test_epoch_end(self) -> None:
        self._log_figures("test")

    # Checkpoints.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ddcm"] = {**self.description, "fit": dict(self.start_figures)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept, here = checkpoint.get("ddcm"), self.description
        if kept is None:
            raise UserError("--ckpt_path is not a checkpoint of python train.py fit")
        for key, what in (("latent_digest", "latents"), ("quantizer", "quantizer")):
            if rename_options(kept[key]) != here[key]:
                raise UserError(f"--ckpt_path was fitted with {what} {kept[key]}, this run has {here[key]}")
        self.start_figures, self._resumed = dict(kept["fit"]), True
