"""``python train.py fit | validate | test``: Lightning's command line around the codebook."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import lightning as L
import yaml
from jsonargparse import get_loader, set_loader
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from ddcm.errors import UserError
from ddcm.fit.bounded import guard_yaml
from ddcm.fit.callbacks import BEST, ExportCodebook
from ddcm.fit.data.module import LatentData
from ddcm.fit.module import CodebookModule
from ddcm.quantize.pretrained import DAMAGED
from ddcm.quantize.spec import RENAMED, rename_options
from ddcm.runtime.exit import run_to_exit_code


class SaveConfig(SaveConfigCallback):
    """Keeps the resolved configuration as ``<default_root_dir>/config.yaml``: it repeats the run."""

    def save_config(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, folder / self.config_filename, skip_none=False, overwrite=True)


def _checkpoints(default_root_dir: str) -> str:
    return str(Path(default_root_dir) / "checkpoints")


class FitCLI(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("model.backbone", "data.init_args.backbone")
        # Two, because save_last of one follows the best: it would not be written while the error rises. Best first:
        # what it has found so far is part of the last checkpoint.
        for key, defaults in (
            ("best", {"monitor": BEST, "filename": "best-{step}"}),
            ("last", {"filename": "last", "enable_version_counter": False}),
        ):
            parser.add_lightning_class_args(ModelCheckpoint, key)
            parser.set_defaults({f"{key}.{name}": value for name, value in defaults.items()})
            parser.link_arguments("trainer.default_root_dir", f"{key}.dirpath", compute_fn=_checkpoints)
        parser.add_lightning_class_args(ExportCodebook, "export")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults({"early_stopping.monitor": BEST, "early_stopping.patience": 20})

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        every = LightningCLI.subcommands()
        return {name: every[name] for name in ("fit", "validate", "test")}

    def parse_arguments(self, parser: LightningArgumentParser, args) -> None:
        try:
            super().parse_arguments(parser, args)
        except UnicodeDecodeError as error:
            raise UserError(f"a configuration file is not text in UTF-8 ({error})") from error

    def _parse_ckpt_path(self) -> None:
        try:
            super()._parse_ckpt_path()
        except DAMAGED as error:
            raise UserError("--ckpt_path is damaged or holds more than tensors: refused") from error

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ValueError) as error:  # how values that fit their type are refused
            lines = str(error).splitlines()  # of jsonargparse: what it tried, and below it why it failed
            raise UserError(next((x[4:] for x in lines if x.startswith("  - ")), lines[0])) from error

    def before_instantiate_classes(self) -> None:
        self.config[self.subcommand]["weights_only"] = True  # a checkpoint to resume from is never unpickled


def _accept_older_options(args: list[str]) -> list[str]:
    """The same arguments with options of version 0.1 renamed; YAML read from now on is renamed as it is loaded."""
    load = get_loader("yaml")
    set_loader("yaml", lambda text: rename_options(load(text)), (yaml.YAMLError,))
    older = re.compile(rf"(--model\.quantizer\b[^=]*\.)({'|'.join(RENAMED)})(?=[=.]|$)")
    return [older.sub(lambda match: match[1] + RENAMED[match[2]], argument) for argument in args]


def main(args: list[str] | None = None) -> None:
    """Run a subcommand; what the user can mend is one line on stderr and exit code 2."""
    guard_yaml()
    args = _accept_older_options(sys.argv[1:] if args is None else args)

    def work() -> int:
        FitCLI(
            CodebookModule,
            LatentData,  # or --data CLASS; its options stand directly below data: in files and after --data.
            subclass_mode_data=True,
            trainer_defaults={
                "default_root_dir": "runs/fit",
                "max_steps": 2000,
                "val_check_interval": 200,
                "check_val_every_n_epoch": None,  # steps count, not epochs
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 10,
            },
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True, "save_to_log_dir": False},
            seed_everything_default=False,  # every seed is an argument of what it seeds
            args=args,
        )
        return 0

    # Lightning has its own answer to SIGTERM.
    if code := run_to_exit_code(lambda: "error", work, terminable=False):
        raise SystemExit(code)
