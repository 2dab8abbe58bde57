"""Two processes with batches of B fit the codebook that one process with batches of 2B fits."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")

from ddcm.fit.cli import main
from tests.helpers.fit_kinds import FIT_KINDS
from tests.helpers.forked import forking

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore")


def fit(folder: Path, cache: Path, kind: str, processes: int) -> dict:
    """The checkpoint after 30 steps; atoms die and are revived on the way."""
    options = [
        "fit", f"-c={ROOT}/configs/tiny.yaml", f"--data.root={ROOT}/examples", f"--data.cache_dir={cache}",
        f"--trainer.default_root_dir={folder}", "--trainer.logger=false", "--trainer.enable_progress_bar=false",
        "--trainer.max_steps=30", "--trainer.val_check_interval=30", "--model.listen_every=0", *FIT_KINDS[kind],
        f"--data.batch_size={4 // processes}", f"--trainer.devices={processes}",
    ]  # fmt: skip
    # Forked, because two fresh processes would spend most of the test's time on imports.
    with forking():
        main([*options, f"--trainer.strategy={'ddp_fork' if processes > 1 else 'auto'}"])
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 30
    return checkpoint


@pytest.mark.parametrize("kind", FIT_KINDS)
def test_two_processes_are_one_with_twice_the_batch(tmp_path, kind):
    two = fit(tmp_path / "two", tmp_path / "shared", kind, processes=2)  # encodes, in shares
    one = fit(tmp_path / "one", tmp_path / "shared", kind, processes=1)
    assert two["state_dict"].keys() == one["state_dict"].keys()
    for name, value in one["state_dict"].items():
        assert (two["state_dict"][name] - value).abs().max() <= 1e-5, name
    for name, value in one["ddcm"]["fit"].items():
        assert two["ddcm"]["fit"][name] == pytest.approx(value, rel=1e-6), name
