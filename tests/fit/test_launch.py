"""Fits that torchrun and SLURM start: what they say in the environment is understood."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")

from ddcm.fit.cli import main
from tests.conftest import EXAMPLES, ROOT
from tests.helpers.forked import forked

pytestmark = pytest.mark.filterwarnings("ignore")


def options(folder: Path, *more: str, root: Path = EXAMPLES) -> list[str]:
    return [
        "fit", "-c", str(ROOT / "configs/tiny.yaml"), *more, f"--data.root={root}",
        f"--data.cache_dir={folder / 'cache'}", f"--trainer.default_root_dir={folder / 'run'}",
        "--trainer.max_steps=4", "--trainer.val_check_interval=4", "--model.listen_every=0",
        "--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu",
    ]  # fmt: skip


def finished(folder: Path) -> bool:
    checkpoint = torch.load(folder / "run/checkpoints/last.ckpt", weights_only=True)
    return checkpoint["global_step"] == 4 and (folder / "run/codebook/config.json").is_file()


def torchrun(*arguments: str) -> subprocess.CompletedProcess:
    # The module, not the script: that of this interpreter. Nobody else's ports.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train.py"]
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="no gloo")
def test_torchrun_with_two_processes(tmp_path):
    overlay = ("-c", str(ROOT / "configs/ddp.yaml"))
    done = torchrun(*options(tmp_path, *overlay), "--trainer.devices=2")
    assert done.returncode == 0, done.stderr[-2000:]
    assert finished(tmp_path) and "MEMBER: 2/2" in done.stderr
    assert len(list((tmp_path / "cache").rglob("*.f16"))) == len(list((tmp_path / "cache").rglob("[0-9a-f]*.json"))) - 1


@pytest.mark.slow
def test_an_error_of_rank_zero_ends_every_rank(tmp_path):
    done = torchrun(*options(tmp_path, root=tmp_path / "absent"), "--trainer.devices=2")
    assert done.returncode != 0
    assert done.stderr.count(f"error: --data.root {tmp_path}/absent") == 2


@pytest.fixture
def slurm(monkeypatch):
    """What srun sets for one task on one node."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    variables = {
        "JOB_ID": "4711", "JOB_NAME": "ddcm-fit", "NTASKS": "1", "NTASKS_PER_NODE": "1", "NNODES": "1", "NPROCS": "1",
        "PROCID": "0", "LOCALID": "0", "NODEID": "0", "NODELIST": "localhost", "JOB_NODELIST": "localhost",
        "GTIDS": "0", "STEP_ID": "0",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # Lightning would take the node's name, which need not resolve
    monkeypatch.delenv("MASTER_PORT", raising=False)


@pytest.mark.parametrize("overlay", [(), ("-c", str(ROOT / "configs/slurm.yaml"))], ids=["plain", "slurm.yaml"])
def test_inside_a_slurm_job(tmp_path, slurm, overlay):
    forked(lambda: main([*options(tmp_path, *overlay), "--trainer.devices=1", "--trainer.num_nodes=1"]))
    assert finished(tmp_path)


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize("resumed", [False, True])
def test_the_slurm_script_starts_this(tmp_path, resumed):
    """The script with srun replaced by one that prints what its arguments."""
    (tmp_path / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    last = tmp_path / "a run" / "checkpoints" / "last.ckpt"
    if resumed:
        last.parent.mkdir(parents=True)
        last.touch()
    done = subprocess.run(
        ["bash", "docs/fit.slurm", "my audio", "--data.batch_size", "8"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_NNODES": "2",
             "SLURM_NTASKS_PER_NODE": "4", "RUN_DIR": str(tmp_path / "a run")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    arguments = done.stdout.splitlines()
    assert arguments[1:4] == ["python", "train.py", "fit"]
    assert arguments[arguments.index("--data.root") + 1 :][:3] == ["my audio", "--data.batch_size", "8"]
    for option, value in (("--trainer.num_nodes", "2"), ("--trainer.devices", "4")):
        assert arguments[arguments.index(option) + 1] == value
    assert (arguments[-2:] == ["--ckpt_path", str(last)]) == resumed
    assert all((ROOT / name).is_file() for name in arguments if name.endswith(".yaml"))
