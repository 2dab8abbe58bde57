"""Files that version 0.1 wrote: they decode to the same audio, and its fit resumes to the same codebook."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ddcm.pipeline import DDCMPipeline
from tests.conftest import EXAMPLES, ROOT

OLD = ROOT / "tests" / "data" / "version_0_1"
EVERY = 13  # expected.safetensors has every 13th number
TOLERANCE = 2e-3  # share of the largest number: float16 rounding, and the arithmetic of another processor
CODEBOOKS = {"vq": OLD / "codebook", "vq_residual": OLD / "last.ckpt"}


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return load_file(OLD / "expected.safetensors")


def assert_near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    wanted = wanted.float()
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE * float(wanted.abs().max()))


def test_all_six_files_are_here():
    assert len(list(OLD.glob("*.ddcm"))) == 6


@pytest.mark.parametrize("path", sorted(OLD.glob("*.ddcm")), ids=lambda path: path.stem)
def test_an_older_file_decodes_to_the_same_audio(path, expected):
    pipeline = DDCMPipeline.from_pretrained("tiny", CODEBOOKS.get(path.stem))
    out = pipeline.decompress(path.read_bytes())
    assert_near(out.latent.flatten()[::EVERY], expected[f"{path.stem}.latent"])
    assert_near(out.audio[::EVERY], expected[f"{path.stem}.audio"])


@pytest.mark.filterwarnings("ignore")
def test_an_older_fit_resumes_to_the_same_codebook(tmp_path, expected):
    """With the config.yaml that the run left, whose class paths are those of version 0.1."""
    pytest.importorskip("lightning")
    from ddcm.fit.cli import main

    before = torch.load(OLD / "last.ckpt", weights_only=True)
    assert before["global_step"] == 10
    main(
        ["fit", "-c", str(OLD / "config.yaml"), "--ckpt_path", str(OLD / "last.ckpt"), f"--data.root={EXAMPLES}",
         f"--data.cache_dir={tmp_path / 'latents'}", f"--trainer.default_root_dir={tmp_path}"]
    )  # fmt: skip
    after = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert after["global_step"] == 20
    wanted = {name.removeprefix("resumed."): value for name, value in expected.items() if name.startswith("resumed.")}
    added = {name for name in after["state_dict"] if name.endswith("initialised")}
    assert after["state_dict"].keys() - added == wanted.keys() and all(after["state_dict"][name] == 1 for name in added)
    for name, value in wanted.items():
        assert_near(after["state_dict"][name].float(), value)
    moved = [name for name in wanted if not torch.equal(before["state_dict"][name], after["state_dict"][name])]
    assert any(name.endswith("codebook") for name in moved)
    figures = json.loads(Path(tmp_path / "codebook" / "config.json").read_text())["fit"]
    assert figures["quantisation_error_start"] == before["ddcm"]["fit"]["quantisation_error"]


@pytest.mark.parametrize(
    "path",
    ["ddcm.fit.data.LatentData", "ddcm.fit.streaming.StreamedLatents", "ddcm.quantize.HardQuantizer",
     "ddcm.quantize.SoftQuantizer", "ddcm.quantize.ResidualQuantizer", "ddcm.quantize.ProjectedQuantizer",
     "ddcm.fit.module.CodebookModule", "ddcm.pipeline.DDCMPipeline"],
)  # fmt: skip
def test_class_paths_of_older_configurations_still_name_a_class(path):
    pytest.importorskip("lightning")
    module, _, name = path.rpartition(".")
    assert getattr(import_module(module), name).__name__ == name
