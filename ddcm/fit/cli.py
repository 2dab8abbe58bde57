"""``ddcm fit | validate | test``, which is also ``python train.py``: Lightning's command line for the codebook."""

import functools
import inspect
import logging
import re
import sys
import textwrap
import traceback
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import lightning as L
import torch
import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter, get_loader, set_loader
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, GradientAccumulationScheduler, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from ddcm.errors import UserError, describe_error
from ddcm.fit.arguments import find_config
from ddcm.fit.callbacks import MONITOR, ExportCodebook
from ddcm.fit.checkpoint import check_entries
from ddcm.fit.data.latent_data import LatentData
from ddcm.fit.module import CodebookModule
from ddcm.quantize import QUANTIZERS, HardQuantizer
from ddcm.quantize.pretrained import read_checkpoint
from ddcm.quantize.spec import RENAMED, rename_options
from ddcm.runtime.exit import run_to_exit_code
from ddcm.runtime.ranks import read_launched_rank
from ddcm.runtime.threads import check_processes

SUBCOMMANDS = ("fit", "validate", "test")
CHOSEN_BY_LIGHTNING = ("best", "last", "hpc")  # of --ckpt_path: no files
EXAMPLES = (
    "  ddcm fit -c fit.yaml --data.root AUDIO_DIR",
    "  ddcm fit -c fit.yaml --data.root AUDIO_DIR --model.quantizer.codebook_size 256 --trainer.max_steps 500",
)


def main(args: list[str] | None = None) -> None:
    """Run a subcommand. A UserError is one line on stderr and exit code 2."""
    _accept_older_yaml()
    _take_integers_first()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # hints, and what it found of GPUs
    args = _rename_older_options(sys.argv[1:] if args is None else args)

    def work() -> int:
        FitCLI(
            CodebookModule,
            LatentData,  # or --data CLASS; its options follow directly below data: in files and after --data.
            subclass_mode_data=True,
            trainer_defaults={
                "default_root_dir": "runs/fit",
                "max_steps": 2000,
                "val_check_interval": 200,
                "check_val_every_n_epoch": None,  # count steps, not epochs
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 10,
            },
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True, "save_to_log_dir": False},
            seed_everything_default=False,  # the seeds are arguments of the model and the data
            args=args,
            subcommand=args[0] if args and args[0] in SUBCOMMANDS else None,
        )
        return 0

    # Lightning handles SIGTERM itself.
    if code := run_to_exit_code(lambda: "error", work, terminable=False):
        raise SystemExit(code)


class ConfigFile(ActionConfigFile):
    """``--config`` with ``find_config``."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        super().__call__(parser, cfg, find_config(values), option_string)


class SaveConfig(SaveConfigCallback):
    """Writes the resolved configuration, which repeats the run, to ``<default_root_dir>/config.yaml``."""

    def save_config(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, folder / self.config_filename, skip_none=False, overwrite=True)


class HelpFormatter(DefaultHelpFormatter):
    """The text at the end stays as it is, line by line."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class FitParser(LightningArgumentParser):
    """Describes the quantizers when help is shown: parsers of their classes take as long as one of a start."""

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        self.epilog = describe_quantizers()
        return super().format_help(*args, **kwargs)


def describe_quantizers() -> str:
    """Examples, and the settings of each quantizer with their defaults, from the docstrings of their classes."""
    lines = ["examples:", *EXAMPLES]
    for quantizer in QUANTIZERS.values():
        parser = ArgumentParser()
        parser.add_class_arguments(quantizer, "model.quantizer")
        lines += ["", f"--model.quantizer {quantizer.__name__}" + " (default)" * (quantizer is HardQuantizer)]
        for action in parser._actions:
            if action.dest.startswith("model.quantizer.") and not action.dest.endswith(".help"):
                default = f" (default: {action.default})" if action.default is not None else ""
                text = textwrap.fill(f"{action.help}{default}", 92)
                lines += [f"  --{action.dest}", textwrap.indent(text, " " * 8)]
    return "\n".join(lines)


class FitCLI(LightningCLI):
    def __init__(self, *args: Any, subcommand: str | None = None, **kwargs: Any):
        self._named = (subcommand,) if subcommand else SUBCOMMANDS  # options of the others take half the start-up time
        super().__init__(*args, **kwargs)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs.setdefault("dump_header", [f"lightning.pytorch=={L.__version__}"])
        parser = FitParser(formatter_class=HelpFormatter, **kwargs)
        parser.add_argument("-c", "--config", action=ConfigFile, help="a configuration file; several add up")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("model.backbone", "data.init_args.backbone")
        # Two callbacks: save_last of one follows its monitor, and would not be written while the error rises. The best
        # one comes first, because its state is part of the last checkpoint.
        for key, defaults in (
            ("best", {"monitor": MONITOR, "filename": "best-{step}"}),
            ("last", {"filename": "last", "enable_version_counter": False}),
        ):
            parser.add_lightning_class_args(ModelCheckpoint, key)
            parser.set_defaults({f"{key}.{name}": value for name, value in defaults.items()})
            parser.link_arguments("trainer.default_root_dir", f"{key}.dirpath", compute_fn=_checkpoint_folder)
        parser.add_lightning_class_args(ExportCodebook, "export")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults({"early_stopping.monitor": MONITOR, "early_stopping.patience": 20})

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static
        subcommands = LightningCLI.subcommands()
        return {name: subcommands[name] for name in self._named}

    def parse_arguments(self, parser: LightningArgumentParser, args) -> None:
        try:
            super().parse_arguments(parser, args)
        except UnicodeDecodeError as error:
            raise UserError(f"a configuration file is not text in UTF-8 ({error})") from error

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would read options of the model, and classes to import, out of the checkpoint."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        config.weights_only = True  # a checkpoint is never unpickled
        trainer = config.trainer
        _check_devices(trainer.accelerator, trainer.devices)
        if self.subcommand != "fit":
            if not config.get("ckpt_path") and not config.model.init_from:
                raise UserError(f"{self.subcommand} needs a fitted codebook: give --ckpt_path or --model.init_from")
        elif trainer.limit_val_batches == 0:  # checkpoints are otherwise written by validations
            every = trainer.val_check_interval
            config.last.every_n_train_steps = every if isinstance(every, int) else None
            config.last.save_on_train_epoch_end = not isinstance(every, int)

    def instantiate_trainer(self, **options: Any) -> L.Trainer:
        """Lightning counts batches between validations; here they are steps."""
        trainer = self._get(self.config_init, "trainer")
        if isinstance(every := trainer.get("val_check_interval"), int):
            options["val_check_interval"] = every * (trainer.get("accumulate_grad_batches") or 1)
        made = super().instantiate_trainer(**options)
        schedules = [
            callback.scheduling
            for callback in made.callbacks  # type: ignore[attr-defined]
            if isinstance(callback, GradientAccumulationScheduler)
        ]
        if isinstance(every, int) and any(schedule.keys() - {0} for schedule in schedules):
            share = "give --trainer.val_check_interval as a share of an epoch, such as 1.0"
            raise UserError(f"GradientAccumulationScheduler changes how many batches a step has: {share}")
        if made.reload_dataloaders_every_n_epochs:  # type: ignore[attr-defined]
            raise UserError(
                "--trainer.reload_dataloaders_every_n_epochs starts the stream of windows anew: leave it at 0"
            )
        return made

    def instantiate_classes(self) -> None:
        path = self.config[self.subcommand].get("ckpt_path")
        if path and path not in CHOSEN_BY_LIGHTNING and not re.match(r"\w+://|registry", path):
            check_entries(read_checkpoint(Path(path)), path, self.subcommand == "fit")  # before anything is encoded
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ImportError, ValueError) as error:  # a value that a class refuses
            lines = str(error).splitlines()  # jsonargparse lists what it tried, and why each attempt failed
            first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
            raise UserError(next((x[4:] for x in lines if x.startswith("  - ")), first)) from error

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except Exception as error:
            message = None if isinstance(error, UserError) else _explain(error, self.trainer.ckpt_path)
            if message is None:
                raise
            raise UserError(message) from error


def _check_devices(accelerator: Any, devices: Any) -> None:
    """Raises UserError: more processes on the CPU than cores, before one of them starts. Lightning starts any number.
    The processes of torchrun or srun are there already."""
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    if on_cpu and str(devices).isdigit() and read_launched_rank()[1] == 1:
        check_processes("--trainer.devices", int(devices))


def _explain(error: Exception, ckpt_path: Any) -> str | None:
    """The line for an error in restoring a checkpoint, or in options that Lightning refuses late; None for others."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    if ckpt_path and any(module.endswith(".checkpoint_connector") for module in modules):
        return f"{ckpt_path} is damaged, or of another fit: {describe_error(error)}"
    refused = isinstance(error, ValueError | TypeError | RuntimeError) and modules[-1].startswith("lightning.")
    return describe_error(error) if refused or isinstance(error, MisconfigurationException | ImportError) else None


@functools.cache
def _accept_older_yaml() -> None:
    """From now on, rename the options of version 0.1 in YAML as it is loaded."""
    load = get_loader("yaml")
    set_loader("yaml", lambda text: rename_options(load(text)), (yaml.YAMLError,))


def _take_integers_first() -> None:
    """Let 1 stay a number of batches. Where another library, as gradio, has named the type "float or int" before,
    ``typing`` gives Lightning that one for its "int or float", and 1 would become the share 1.0."""
    annotations = inspect.unwrap(L.Trainer.__init__).__annotations__
    for name, kind in annotations.items():
        if get_origin(kind) is Union and set(get_args(kind)) - {type(None)} == {int, float}:
            annotations[name] = int | float | None if type(None) in get_args(kind) else int | float


def _rename_older_options(args: list[str]) -> list[str]:
    older = re.compile(rf"(--model\.quantizer\b[^=]*\.)({'|'.join(RENAMED)})(?=[=.]|$)")
    return [older.sub(lambda match: match[1] + RENAMED[match[2]], argument) for argument in args]


def _checkpoint_folder(default_root_dir: str) -> str:
    return str(Path(default_root_dir) / "checkpoints")
