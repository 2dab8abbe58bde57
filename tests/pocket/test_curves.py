"""The picture of how the stages learned."""

import pytest

pytest.importorskip("lightning")

from torch.utils.tensorboard import SummaryWriter

from ddcm.errors import UserError
from pocket.curves import curves, draw


def logged(folder, values, begin=0):
    with SummaryWriter(str(folder)) as writer:
        for step, value in enumerate(values, begin):
            writer.add_scalar("val_mel_db", value, step)
            writer.add_scalar("loss", 1.0, step)


def test_a_resumed_run_is_one_curve_of_what_was_validated(tmp_path):
    logged(tmp_path / "vae" / "logs", [4.0, 3.0])
    logged(tmp_path / "vae" / "logs", [2.0, 1.0], begin=2)
    assert curves(tmp_path / "vae" / "logs") == {"val_mel_db": [(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.0)]}
    draw(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_runs_without_a_log_are_named(tmp_path):
    with pytest.raises(UserError, match="no stage in it has logs"):
        draw(tmp_path, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
