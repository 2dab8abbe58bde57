"""Fixtures: fits on the random backbone and the six examples, whose latents are encoded once."""

from pathlib import Path

import pytest
import torch

from tests.conftest import EXAMPLES, ROOT

SHORT = ("--trainer.max_steps=6", "--trainer.val_check_interval=2", "--model.listen_every=0", "--trainer.logger=false")


@pytest.fixture(scope="session")
def latents(tmp_path_factory) -> Path:
    """One cache for the whole session: the examples are encoded once."""
    return tmp_path_factory.mktemp("latents")


@pytest.fixture
def fit(tmp_path, latents):
    """``fit(name, *options)`` runs configs/tiny.yaml below tmp_path/name and returns that folder."""

    from ddcm.fit.cli import main

    def run(name: str, *options: str, configs: tuple[Path, ...] = (ROOT / "configs" / "tiny.yaml",)) -> Path:
        folder = tmp_path / name
        config_options = [part for config in configs for part in ("-c", str(config))]
        main(
            ["fit", *config_options, f"--data.root={EXAMPLES}", f"--data.cache_dir={latents}", "--model.backbone=tiny",
             f"--trainer.default_root_dir={folder}", "--trainer.enable_progress_bar=false",
             "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu", *options]
        )  # fmt: skip
        return folder

    return run


@pytest.fixture(scope="session")
def command(latents) -> list[str]:
    """A fit of 6 steps; the folder of the run is missing."""
    return [
        "fit", f"-c={ROOT / 'configs/tiny.yaml'}", f"--data.root={EXAMPLES}", f"--data.cache_dir={latents}",
        "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--model.backbone=tiny", *SHORT,
    ]  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory, command) -> Path:
    """The last checkpoint of that fit."""
    folder = tmp_path_factory.mktemp("trained")
    from ddcm.fit.cli import main

    main([*command, f"--trainer.default_root_dir={folder}"])
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture
def altered(trained, tmp_path):
    """``altered(change)`` is a copy of the checkpoint after ``change(checkpoint)``."""

    def alter(change) -> Path:
        checkpoint = torch.load(trained, weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, tmp_path / "altered.ckpt")
        return tmp_path / "altered.ckpt"

    return alter
