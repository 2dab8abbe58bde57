"""Train one part of the pocket backbone for a given time, or further.

    python -m pocket.train --stage vae --budget_minutes 40

Runs are resumed from ``--out/STAGE/last.ckpt`` where there is one: the same command with a larger budget trains
on. Stages in order: linear, vae (which begins with it), vocoder and clap (independent of each other), then unet (needs
vae and clap). The vocoder can be trained again after the vae to hear its mels. ``python -m pocket.assemble`` makes the
folder.
"""

import argparse
from importlib import import_module
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from pocket import checkpoints
from pocket.batches import Windows, validation
from pocket.budget import TimeBudget
from pocket.corpus import POOLS, Corpus

STAGES = {
    "linear": "pocket.vae:LinearStage",
    "vae": "pocket.vae:VAEStage",
    "vocoder": "pocket.vocoder:VocoderStage",
    "clap": "pocket.clap:ClapStage",
    "unet": "pocket.unet:UNetStage",
}


def build(
    stage: str, out: Path, start: Path | None, options: dict[str, float], fresh: bool = False
) -> L.LightningModule:
    module, name = STAGES[stage].split(":")
    cls = getattr(import_module(module), name)
    stage = cls(runs=str(out), start=start, **options) if getattr(cls, "needs_runs", False) else cls(**options)
    if start is not None and not fresh:
        stage.start_from(start)
    return stage


def option(text: str) -> tuple[str, float]:
    name, value = text.split("=")
    return name, float(value)


def load_validation(corpus: Corpus, per_kind: int) -> DataLoader:
    """The fixed validation clips of both pools as the stages take them, at most 2.56 s of each."""
    clips = [clip for pool in POOLS for clip in validation(corpus, 2.56, per_kind, pool)]
    return DataLoader([{"audio": torch.from_numpy(audio), "caption": clip.caption} for clip, audio in clips])


def train(args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    L.seed_everything(args.seed)
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU
    corpus = Corpus(args.corpus)
    module = build(args.stage, args.out, args.start, dict(args.options), args.fresh)
    if args.learning_rate:
        module.learning_rate = args.learning_rate
    folder = args.out / args.stage
    last = folder / "last.ckpt"
    before = None
    if args.weights and not last.exists():
        saved = torch.load(args.weights, weights_only=True, map_location="cpu")
        checkpoints.begin_with(module, saved)
        before = checkpoints.spent(saved)
    # A resumed run must not meet the same windows again.
    seed = args.seed
    if last.exists():
        seed += torch.load(last, weights_only=True, map_location="cpu")["global_step"]
    windows = Windows(
        corpus,
        args.frames or module.frames,
        seed=seed,
        fill=module.fill,
        mixed=args.mixed,
        length_power=args.length_power,
    )
    trainer = L.Trainer(
        accelerator="auto",
        devices=1,
        precision=args.precision or getattr(module, "precision", "bf16-mixed"),
        benchmark=True,
        max_epochs=-1,
        max_steps=-1,
        gradient_clip_val=None if not module.automatic_optimization else 1.0,
        val_check_interval=args.val_every,
        limit_val_batches=args.val_batches,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        logger=TensorBoardLogger(folder, name="", version="logs"),
        callbacks=[
            TimeBudget(args.budget_minutes, before=before),
            ModelCheckpoint(
                folder,
                filename="last",
                save_top_k=1,
                every_n_train_steps=args.save_every,
                enable_version_counter=False,
                save_on_train_epoch_end=False,
            ),
            LearningRateMonitor(),
        ],
        enable_progress_bar=not args.quiet,
        enable_model_summary=not args.quiet,
    )
    trainer.fit(
        module,
        DataLoader(
            windows,
            batch_size=args.batch_size or module.batch_size,
            num_workers=args.workers,
            pin_memory=args.workers > 0,
            persistent_workers=args.workers > 0,
        ),
        load_validation(corpus, 8),
        ckpt_path=last if last.exists() else None,
        weights_only=True,
    )
    trainer.save_checkpoint(last)
    print({name: round(float(value), 4) for name, value in trainer.callback_metrics.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", required=True, choices=STAGES)
    parser.add_argument("--budget_minutes", type=float, required=True, help="of all runs of this stage together")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--out", type=Path, default=Path("runs/pocket"))
    parser.add_argument(
        "--start",
        type=Path,
        help="an assembled folder, such as checkpoints/pocket: begin with its weights instead of random ones, and take "
        "from it the parts that were not trained here (a run that has a last.ckpt goes on from that)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        help="a checkpoint of this stage, such as one that a machine with a GPU has left: this run begins with its "
        "weights; its optimizer is not needed",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="with --start: take from it only the parts that are not trained here"
    )
    parser.add_argument(
        "--options",
        nargs="*",
        type=option,
        default=[],
        metavar="NAME=VALUE",
        help="arguments of the stage's class, such as kl_weight=0.01 or adversarial_from=0.6",
    )
    parser.add_argument("--learning_rate", type=float, help="highest one; default: the stage's, for random weights")
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--frames", type=int, help="mel frames of a training window")
    parser.add_argument("--mixed", type=float, default=0.0, help="share of windows with a second clip in them")
    parser.add_argument(
        "--length_power", type=float, default=0.5, help="0: short clips are drawn as often as long ones"
    )
    parser.add_argument("--precision", help="as Lightning has it (default: the stage's; bf16-mixed helps on CPUs too)")
    parser.add_argument("--threads", type=int, help="of this process (default: torch's choice)")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw windows, for a GPU")
    parser.add_argument("--val_every", type=int, default=200, help="steps between validations")
    parser.add_argument("--val_batches", type=int, default=64)
    parser.add_argument("--save_every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true")
    train(parser.parse_args())
