"""The pipeline that a verb's flags ask for, and what it is computed with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import Namespace

from ddcm.cli.options import POCKET, ModelSettings, read_settings
from ddcm.errors import UserError
from ddcm.runtime.ranks import read_local_rank

if TYPE_CHECKING:
    from ddcm.pipeline import DDCMPipeline

POCKET_CODEBOOK = "checkpoints/codebooks/pocket-1024"


def load_pipeline(arguments: Namespace, quantises: bool) -> DDCMPipeline:
    """The pipeline of the model settings; the pocket brings its own codebook where the verb quantises.

    Raises:
        UserError: a setting out of range, or a backbone or codebook that cannot be loaded.
    """
    from ddcm.pipeline import DDCMPipeline

    model = read_settings(arguments, ModelSettings)
    set_threads(model.threads)
    own = POCKET_CODEBOOK if quantises and model.backbone == POCKET else None
    codebook = own if model.codebook is None else model.codebook
    return DDCMPipeline.from_pretrained(
        model.backbone, codebook, model.batch_size, device=choose_device(model.device), dtype=model.dtype,
        vae_dtype=model.vae_dtype, compiled=model.compile, heads=model.heads, null=model.null,
    )  # fmt: skip


def choose_device(device: str | None) -> str:
    """The device of this process: under a launcher, each process has a GPU of its own.

    Raises:
        UserError: there are fewer GPUs than processes.
    """
    import torch

    if device not in (None, "cuda") or not torch.cuda.is_available():
        return device or "cpu"
    rank, processes = read_local_rank()
    if processes > (gpus := torch.cuda.device_count()):
        raise UserError(f"{processes} processes on this node, but {gpus} GPUs: give a smaller --devices")
    return f"cuda:{rank}"


def set_threads(threads: int | None) -> None:
    """Limit the CPU threads of this process; None leaves torch's own choice."""
    import torch

    if threads is not None:
        if threads < 1:
            raise UserError(f"--threads {threads} is below 1")
        torch.set_num_threads(threads)
