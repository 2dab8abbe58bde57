"""Files that earlier versions wrote decode to the same audio, and a fit of version 0.1 resumes to the same codebook."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ddcm.pipeline import DDCMPipeline
from tests.conftest import EXAMPLES, ROOT

DATA = ROOT / "tests" / "data"
OLD = DATA / "version_0_1"
FILES = sorted(DATA.glob("*/*.ddcm"))
EVERY = 13  # expected.safetensors has every 13th number
TOLERANCE = 2e-3  # share of the largest number: float16 rounding, and the arithmetic of another processor
RESIDUAL = OLD / "last.ckpt"
CODEBOOKS = {
    "version_0_1/vq": OLD / "codebook", "version_0_1/vq_residual": RESIDUAL, "format_4/hybrid": RESIDUAL,
    "format_4/vq": RESIDUAL, "format_5/hybrid": RESIDUAL,
}  # fmt: skip


def load_expected(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "expected.safetensors")


def assert_near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    wanted = wanted.float()
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE * float(wanted.abs().max()))


def test_all_files_are_here():
    versions = [path.read_bytes()[4] for path in FILES]
    assert {version: versions.count(version) for version in versions} == {2: 6, 4: 4, 5: 3}


def name_file(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", FILES, ids=name_file)
def test_an_older_file_decodes_to_the_same_audio(path):
    expected = load_expected(path.parent)
    pipeline = DDCMPipeline.from_pretrained("tiny", CODEBOOKS.get(name_file(path)))
    out = pipeline.decompress(path.read_bytes())
    assert_near(out.latent.flatten()[::EVERY], expected[f"{path.stem}.latent"])
    assert_near(out.audio[::EVERY], expected[f"{path.stem}.audio"])


@pytest.mark.filterwarnings("ignore")
def test_an_older_fit_resumes_to_the_same_codebook(tmp_path):
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
    expected = load_expected(OLD).items()
    wanted = {name.removeprefix("resumed."): value for name, value in expected if name.startswith("resumed.")}
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
