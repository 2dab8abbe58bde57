"""Parts of other widths: how they are trained and loaded, and the sweep over them."""

import runpy
from argparse import Namespace
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("pytorch_optimizer")

from pocket import pretrained, sizes, unet, vae, vocoder
from pocket.train import build
from tests.helpers.forked import forked
from tests.helpers.pocket_corpus import examples_as_corpus

POCKET = Path(__file__).parents[2] / "checkpoints" / "pocket"


def test_a_checkpoint_is_loaded_at_the_width_that_it_was_trained_at(tmp_path):
    for name, width, load in (
        ("vae", 16, lambda: vae.load_vae(tmp_path)),
        ("vocoder", 64, lambda: vocoder.load_vocoder(tmp_path)),
    ):
        stage = build(name, tmp_path, None, {"width": width})
        (tmp_path / name).mkdir()
        saved = {"state_dict": stage.state_dict(), "hyper_parameters": dict(stage.hparams)}
        torch.save(saved, tmp_path / name / "last.ckpt")
        ours, loaded = getattr(stage, name).state_dict(), load().state_dict()
        assert ours.keys() == loaded.keys() and all(torch.equal(x, loaded[key]) for key, x in ours.items())


def test_a_checkpoint_from_before_there_were_widths_is_loaded(tmp_path):
    stage = build("vocoder", tmp_path, None, {})
    (tmp_path / "vocoder").mkdir()
    torch.save({"state_dict": stage.state_dict(), "hyper_parameters": {}}, tmp_path / "vocoder" / "last.ckpt")
    weight = vocoder.load_vocoder(tmp_path).conv_pre.weight
    assert torch.equal(weight, stage.vocoder.conv_pre.weight)


def test_the_widths_of_today_are_those_that_are_shipped():
    for ours, theirs in (
        (vae.VAEStage().vae, pretrained.vae(POCKET)),
        (vocoder.untrained(), pretrained.vocoder(POCKET)),
        (unet.untrained(), pretrained.parts(POCKET)["unet"]),
    ):
        assert {k: x.shape for k, x in ours.state_dict().items()} == {
            k: x.shape for k, x in theirs.state_dict().items()
        }
    for name, part in sizes.PARTS.items():
        shapes = [sum(p.numel() for p in build(name, Path("none"), POCKET if name != "vae" else None, {"width": width},
                                               fresh=True).parameters()) for width in part.widths]  # fmt: skip
        assert shapes == sorted(set(shapes))


def test_fresh_weights_learn_beside_the_shipped_parts(tmp_path):
    stage = build("vocoder", tmp_path, POCKET, {"width": 64}, fresh=True)
    assert stage._vae and stage.vocoder.config.upsample_initial_channel == 64
    other = build("unet", tmp_path, POCKET, {}, fresh=True)
    assert not torch.equal(other.parts["unet"].conv_in.weight, pretrained.parts(POCKET)["unet"].conv_in.weight)


def run_module(words: list[str]) -> None:
    """``python -m MODULE ...`` in this process, which has everything imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", words)
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def test_the_sweep_trains_measures_and_prints_and_does_not_train_twice(tmp_path, monkeypatch):
    examples_as_corpus(tmp_path)
    monkeypatch.setattr(
        sizes, "PARTS", {"vae": sizes.Part((16,), {"linear": 0.002, "vae": 0.002}, "vae", "val_mel_db")}
    )
    args = Namespace(
        parts=["vae"], scale=1.0, start=POCKET, corpus=tmp_path, out=tmp_path / "sizes", per_kind=1, threads=1
    )
    monkeypatch.setattr(sizes.subprocess, "run", lambda command, check: forked(lambda: run_module(command[2:])))
    first = sizes.sweep(args)
    assert "| vae | 16 | 0.69 | 1.4 | " in first and "Minutes of each run: vae 0.004." in first
    monkeypatch.setattr(sizes.subprocess, "run", lambda *args, **kwargs: None)
    assert sizes.sweep(args) == first
