"""The training of a quantizer's codebook."""

import functools
import itertools
import logging
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torchmetrics import Metric, MetricCollection

from ddcm.backbone import Backbone
from ddcm.errors import UserError
from ddcm.fit.checkpoint import adapt_checkpoint, check_entries, check_state, restore_callbacks, restore_optimizer
from ddcm.fit.data.cache import load_frozen_backbone
from ddcm.fit.denoising import diffusion_loss
from ddcm.fit.metrics import CodebookMetrics, DenoisingError
from ddcm.fit.tensorboard import mel_difference_db, show_codebook, show_mels
from ddcm.quantize import HardQuantizer, Quantizer
from ddcm.quantize.base import to_cells
from ddcm.quantize.pretrained import Codebook, describe, load_codebook, read_checkpoint
from ddcm.quantize.spec import from_spec, to_spec
from ddcm.quantize.vector import SingleCodebook
from ddcm.runtime import distributed

log = logging.getLogger(__name__)

DECODED_WINDOWS = 4  # decoded in each validation for val/log_mel_mae_db


class CodebookModule(L.LightningModule):
    """Fits a quantizer's codebook to latents z (B, C, L, F) of a frozen backbone.

    The loss is the sum of the quantizer's losses. Its commitment loss pulls latents to their atoms. The encoder is
    frozen, so this loss moves something only if the quantizer learns something before its codebook (a projection). It
    is always computed and logged, so that runs can be compared.

    The backbone is in neither the module tree nor the checkpoints. A checkpoint names it by its latent digest and is
    refused with another. Checkpoints hold tensors and plain containers only (``weights_only`` loads them).

    A quantizer that learns by EMA has no gradient, which Lightning and DDP refuse. It gets one unused scalar and SGD
    with learning rate zero: Lightning then counts steps and writes checkpoints, and DDP has a parameter to synchronise.

    Args:
        quantizer: what to fit; by default ``HardQuantizer()``, 1024 atoms of 8 numbers.
        backbone: hub name or folder of the backbone.
        learning_rate: of Adam at the start; falls linearly to zero over ``--trainer.max_steps``, because at a
            constant rate the atoms oscillate around their optimum. EMA quantizers do not use it.
        diffusion_weight: of the frozen UNet's error in denoising noised quantised latents; 0 does not load the
            UNet. Needs a quantizer that learns by gradient. Validation then logs ``val/denoising_error``, by which
            the best checkpoint should be chosen: see ``configs/diffusion.yaml``.
        diffusion_windows: number of windows of each batch that go through the UNet, which takes most of a step.
        init_batches: training batches of all ranks; k-means on their cells initialises the codebook.
        init_from: an exported codebook (folder, hub name or ``.ckpt``) of the same shape to start from instead.
        listen_every: validations between pictures and sound in TensorBoard; 0 for none.
        seed: of k-means and of the diffusion loss.
    """

    def __init__(
        self, quantizer: Quantizer | None = None, backbone: str = "pocket", learning_rate: float = 1e-2,
        diffusion_weight: float = 0.0, diffusion_windows: int = 4, init_batches: int = 4, init_from: str | None = None,
        listen_every: int = 1, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        self.quantizer = HardQuantizer() if quantizer is None else quantizer
        self.backbone_name, self.learning_rate, self.diffusion_weight = backbone, learning_rate, diffusion_weight
        self.diffusion_windows = diffusion_windows
        self.init_batches, self.init_from, self.listen_every, self.seed = init_batches, init_from, listen_every, seed
        learns = any(parameter.requires_grad for parameter in self.quantizer.parameters())
        if diffusion_weight > 0 and not learns:
            raise UserError("--model.diffusion_weight moves atoms by gradient; use it with learn: gradient")
        self.unused = None if learns else nn.Parameter(torch.zeros(()))
        self.start_metrics: dict[str, float] = {}  # of the validation after k-means
        self._latent_digest: str | None = None  # that the backbone must have, of a module from a checkpoint
        self._resumes_at = 0  # steps
        self._validations = 0
        self._cells_per_batch = 0

    @property
    def backbone(self) -> Backbone:
        return load_frozen_backbone(self.backbone_name, str(self.trainer.strategy.root_device))

    @property
    def description(self) -> dict[str, Any]:
        """The codebook's settings and latent space, as checkpoints and exports hold them."""
        spec = self.backbone.mel_spec.to_dict()
        return describe(self.quantizer, self.backbone_name, self.backbone.latent_digest, spec)

    def setup(self, stage: str) -> None:
        backbone = self.backbone
        dim, channels, spec = self.quantizer.embedding_dim, backbone.latent_channels, backbone.mel_spec
        if dim != channels:
            raise UserError(f"embedding_dim is {dim}, but latents of {self.backbone_name} have {channels} channels")
        if self._latent_digest not in (None, backbone.latent_digest):
            raise UserError(f"the codebook's latents are {self._latent_digest}, {self.backbone_name}'s are another")
        metrics: list[Metric] = [CodebookMetrics(self.quantizer, spec.sample_rate / spec.hop / 4 * (spec.n_mels // 4))]
        if self.diffusion_weight > 0:
            metrics.append(DenoisingError(backbone, self.diffusion_windows))
        self.metrics = MetricCollection(metrics, compute_groups=False)

    def configure_optimizers(self):
        if self.unused is not None:
            return torch.optim.SGD([self.unused], lr=0.0)
        parameters = [parameter for parameter in self.quantizer.parameters() if parameter.requires_grad]
        # The gradient of an atom at the mean of its cells is rounding, about 1e-9, which Adam's usual eps of 1e-8 would
        # scale up to a step. The gradients of other atoms are above 1e-6.
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, eps=1e-7)
        steps = self.trainer.max_steps
        if steps <= 0:  # the run is limited by epochs or time
            return optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        self._clock = time.monotonic()
        settings = {"learning_rate": self.learning_rate, "diffusion_weight": self.diffusion_weight, "seed": self.seed}
        for logger in self.loggers:
            logger.log_hyperparams({**settings, **self.description})
        if self.global_step < self._resumes_at:  # Lightning's tuners restore a checkpoint of their own
            raise UserError("a callback such as LearningRateFinder started the resumed fit anew: resume without it")
        self._resumes_at = 0
        if self.trainer.accumulate_grad_batches > 1 and not self._codebooks:
            log.warning("%s may learn in each of the batches whose gradients are accumulated", type(self.quantizer))
        if not self.quantizer.initialised:
            if self.init_from:
                self._copy_codebook(load_codebook(self.init_from))
            else:
                self._initialise()
            self.quantizer.initialised.fill_(1)
        if self.global_step == 0:
            for config in self.trainer.lr_scheduler_configs:
                if isinstance(config.scheduler, torch.optim.lr_scheduler.LambdaLR):
                    config.scheduler.base_lrs = [self.learning_rate]  # a tuner may have changed it
            self.start_metrics = self._measure(self._data.val_dataloader())
            self._log_now({f"val/{name}_start": value for name, value in self.start_metrics.items()}, 0)

    @property
    def _data(self) -> Any:
        """The data module, a ``LatentData``."""
        return self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it at run time

    @torch.no_grad()
    def _initialise(self) -> None:
        """Run k-means on the first batches, in the order of a single process."""
        stream, cells = self._data.train_dataloader(), []
        for _ in range(self.init_batches):
            z = next(stream)["z"].to(self.device)
            batch = distributed.gather_rows(z.flatten(1)).reshape(-1, *z.shape[1:])
            cells.append(to_cells(batch, self.quantizer.embedding_dim))
        count, size = sum(map(len, cells)), self.quantizer.codebook_size
        if size > count:
            raise UserError(
                f"codebook_size {size} is larger than the {count} cells that k-means starts from: lower it, raise "
                f"--model.init_batches (now {self.init_batches}) or bring more audio"
            )
        self.quantizer.initialise(torch.cat(cells), seed=self.seed)

    def _copy_codebook(self, codebook: Codebook) -> None:
        codebook.check(self.backbone)
        try:
            self.quantizer.load_state_dict(codebook.quantizer.state_dict())
        except RuntimeError as error:
            source, target = (to_spec(quantizer) for quantizer in (codebook.quantizer, self.quantizer))
            raise UserError(f"--model.init_from {self.init_from} is {source}; this fit is of {target}") from error

    @torch.no_grad()
    def _measure(self, batches) -> dict[str, float]:
        """The metrics of the current codebook."""
        if isinstance(batches, list | tuple | dict):
            raise UserError(f"{type(self._data).__name__} has several validation loaders; a fit has one")
        self.metrics.reset()
        self.quantizer.eval()
        limit = self.trainer.limit_val_batches  # of validations, which the metrics are compared with
        if limit and hasattr(batches, "__len__"):
            batches = itertools.islice(batches, limit if isinstance(limit, int) else int(limit * len(batches)))
        for number, batch in enumerate(batches):
            z = batch["z"].to(self.device)
            self.metrics.update(z=z, quantized=self.quantizer(z), batch_index=number)
        self.quantizer.train()
        return self.metrics.compute()

    def _log_now(self, metrics: dict[str, float], step: int) -> None:
        for logger in self.loggers:
            logger.log_metrics(metrics, step)

    # Steps.

    def training_step(self, batch: dict, batch_index: int) -> torch.Tensor:
        for book in self._codebooks:
            book.defers_update = True
        quantized = self.quantizer(batch["z"])
        losses = dict(quantized.losses)
        if self.diffusion_weight > 0:
            z, seed = quantized.z_q_codebook[: self.diffusion_windows], self.seed * 1_000_003 + self._batches_before
            losses["diffusion"] = self.diffusion_weight * diffusion_loss(self.backbone, z, seed)
        self.log_dict({f"train/{name}": value.detach() for name, value in (losses | quantized.metrics).items()})
        self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log("train/perplexity", quantized.perplexity, prog_bar=True)
        self.log("train/usage", quantized.usage)
        self._cells_per_batch = batch["z"].numel() // batch["z"].shape[1] * self.trainer.world_size
        loss = functools.reduce(torch.add, losses.values())
        return loss if self.unused is None else loss.detach() + 0 * self.unused

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        for book in self._codebooks:
            book.update()
            book.defers_update = False

    @property
    def _codebooks(self) -> list[SingleCodebook]:
        return [part for part in self.quantizer.modules() if isinstance(part, SingleCodebook)]

    @property
    def _batches_before(self) -> int:
        """Number of training batches before the present one, of all epochs; steps unless gradients are accumulated."""
        return self.trainer.fit_loop.total_batch_idx

    def on_train_batch_end(self, outputs, batch, batch_index: int) -> None:
        now = time.monotonic()
        self.log("train/cells_per_s", self._cells_per_batch / (now - self._clock), prog_bar=True)
        self._clock = now

    def on_validation_epoch_start(self) -> None:
        self.metrics.reset()
        if self.trainer.state.fn == TrainerFn.FITTING or self.quantizer.initialised:
            return
        if not self.init_from:
            raise UserError("the codebook is not fitted: give --ckpt_path, or --model.init_from with an exported one")
        self._copy_codebook(load_codebook(self.init_from))

    def validation_step(self, batch: dict, batch_index: int) -> None:
        quantized = self.quantizer(batch["z"])
        self.metrics.update(z=batch["z"], quantized=quantized, batch_index=batch_index)
        if batch_index == 0 and self.trainer.is_global_zero:
            self._decode(batch["z"][:DECODED_WINDOWS], quantized.z[:DECODED_WINDOWS])

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    on_test_epoch_start, test_step = on_validation_epoch_start, validation_step

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _decode(self, before: torch.Tensor, after: torch.Tensor) -> None:
        """Measure what quantisation changes in the mels of z (B, C, L, F), and show it in TensorBoard."""
        self._mae_db, mels = mel_difference_db(self.backbone, before.float(), after.float())
        due = self.listen_every and self._validations % self.listen_every == 0
        self._validations += 1
        for board in [getattr(logger, "experiment", None) for logger in self.loggers] if due else []:
            if hasattr(board, "add_figure"):
                show_mels(board, self.backbone, mels, self.global_step)
                show_codebook(board, self.quantizer, before, self.global_step)

    def _log_metrics(self, stage: str) -> None:
        metrics = self.metrics.compute()
        if self.trainer.is_global_zero:
            self.log(f"{stage}/log_mel_mae_db", self._mae_db, rank_zero_only=True)
        for name, value in metrics.items():  # equal on every rank; sync_dist only silences Lightning's warning
            self.log(f"{stage}/{name}", value, prog_bar=name == "quantisation_error", sync_dist=True)
        if stage == "val":  # on this axis, runs with other batch sizes and numbers of processes can be compared
            kilocells = (self._batches_before + 1) * self._cells_per_batch // 1000
            self._log_now({"by_kilocells/quantisation_error": metrics["quantisation_error"]}, kilocells)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: Any = None, weights_only: bool | None = None, **options: Any
    ) -> "CodebookModule":
        """The module with a checkpoint's codebook, and the arguments ``options`` otherwise. Nothing else comes from the
        file: a backbone with other latents than the file's is refused, too. ``weights_only`` always counts as true."""
        path, checkpoint = Path(checkpoint_path), read_checkpoint(Path(checkpoint_path))
        check_entries(checkpoint, path, resumes=False)
        options.setdefault("quantizer", from_spec(to_spec(load_codebook(path).quantizer)))
        module = cls(**options)
        check_state(checkpoint, module, path)
        module.load_state_dict(checkpoint["state_dict"])
        module._latent_digest = checkpoint["ddcm"]["latent_digest"]
        return module if map_location is None else module.to(map_location)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ddcm"] = {**self.description, "fit": dict(self.start_metrics)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep of a checkpoint what fits this run; see ``ddcm.fit.checkpoint``."""
        path, resumes = str(self.trainer.ckpt_path), self.trainer.state.fn == TrainerFn.FITTING
        adapt_checkpoint(checkpoint, path, self, self.description, resumes)
        if resumes:
            entries = restore_optimizer(checkpoint, self.configure_optimizers(), path)
            callbacks = restore_callbacks(checkpoint, self.trainer.callbacks, path)  # type: ignore[attr-defined]
            checkpoint |= entries | {"callbacks": callbacks}
            self._resumes_at = max(self._resumes_at, checkpoint["global_step"])
        self.start_metrics = dict(checkpoint["ddcm"]["fit"])
