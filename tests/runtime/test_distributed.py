"""What ranks do for each other, in two processes over gloo."""

import json
import multiprocessing
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")

from ddcm.errors import UserError
from ddcm.runtime.distributed import run_on_every_rank, run_on_rank_zero
from tests.helpers.forked import one_thread

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="no gloo")


def complain(text: str):
    raise UserError(text)


def said(work) -> str:
    try:
        return str(work())
    except UserError as error:
        return f"error: {error}"


def process(rank: int, folder: Path) -> None:
    one_thread()
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = [
        said(lambda: run_on_rank_zero(lambda: f"of {rank}")),
        said(lambda: run_on_rank_zero(lambda: complain(f"of {rank}"))),
        said(lambda: run_on_every_rank(lambda: f"of {rank}")),
        said(lambda: run_on_every_rank(lambda: complain(f"of {rank}") if rank == 1 else "fine")),
        said(lambda: run_on_every_rank(lambda: complain(f"of {rank}"))),
        said(lambda: run_on_every_rank(lambda: "still in step")),
    ]
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def test_results_and_errors_reach_every_rank(tmp_path):
    # Forked, because fresh processes would spend the test's time on imports.
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=process, args=(rank, tmp_path)) for rank in range(2)]
    for started in processes:
        started.start()
    for started in processes:
        started.join(60)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for rank in range(2):
        assert found[rank] == [
            "of 0", "error: of 0", f"of {rank}", "error: of 1", "error: of 0", "still in step",
        ]  # fmt: skip


def test_alone_nothing_is_shared():
    assert run_on_rank_zero(lambda: 3) == 3 and run_on_every_rank(lambda: 4) == 4
    with pytest.raises(UserError, match="mine"):
        run_on_every_rank(lambda: complain("mine"))
