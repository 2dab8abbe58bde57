"""Which head layout fits the weights: found on networks that predict noise by one of the two."""

import shutil

import pytest
import torch

from benchmarks import full_size
from ddcm.audio.files import read_audio
from ddcm.audio.level import normalise_level
from ddcm.audio.mel import log_mel
from ddcm.backbone import load
from ddcm.backbone.head_layout import LAYOUTS, TIMESTEPS, check_heads, verdict
from ddcm.cli.main import main
from ddcm.diffusion.timesteps import add_noise
from tests.conftest import EXAMPLES

pytestmark = pytest.mark.filterwarnings("ignore")
TRAINED_ON, ASKED_ABOUT = EXAMPLES / "melodic.flac", EXAMPLES / "speech.flac"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("heads") / "small"
    full_size.write(path, "small")
    return path


def fit_last_layer(folder, heads: str) -> None:
    """Train the UNet's last layer under one layout, in closed form: the noise is regressed on what reaches the layer.

    Attention is made sharper first, so that the layouts differ as they do in a trained network.
    """
    backbone = load(folder, heads=heads)
    unet = backbone.unet
    for name, weight in unet.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight")):
            weight.mul_(4.0)
    seen = []
    handle = unet.conv_out.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    audio = normalise_level(read_audio(TRAINED_ON))[0][: 16000 * 5 // 640 * 640]
    z, generator = backbone.encode(log_mel(audio[None])), torch.Generator().manual_seed(1)
    features, noises = [], []
    for t in TIMESTEPS:
        noise = torch.randn(z.shape, generator=generator)
        backbone.eps(add_noise(z, noise, float(backbone.alphas_cumprod[t])), t, backbone.null_condition())
        patches = torch.nn.functional.unfold(seen.pop(), 3, padding=1)[0].T  # [cells, 9 channels]
        features.append(torch.cat([patches, torch.ones(len(patches), 1)], dim=1))
        noises.append(noise[0].flatten(1).T)
    handle.remove()
    x, y = torch.cat(features).double(), torch.cat(noises).double()
    ridge = 1e-3 * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(x.T @ x + ridge, x.T @ y).float()  # [9 channels + 1, 8]
    unet.conv_out.weight.copy_(solved[:-1].T.reshape(unet.conv_out.weight.shape))
    unet.conv_out.bias.copy_(solved[-1])
    published = (folder / "unet" / "config.json").read_text()
    unet.save_pretrained(folder / "unet")  # whose config has the heads that were trained
    (folder / "unet" / "config.json").write_text(published)


@pytest.mark.parametrize("heads", LAYOUTS)
def test_the_layout_of_the_weights_is_found(folder, tmp_path, heads, capsys):
    mine = tmp_path / heads
    shutil.copytree(folder, mine)
    fit_last_layer(mine, heads)
    assert main(["inspect", str(mine), "--check_heads", str(ASKED_ABOUT)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("noise error, timestep") for line in said) == len(TIMESTEPS)
    (line,) = (line for line in said if line.startswith("verdict"))
    assert line.split(maxsplit=1)[1].startswith(f"{heads}: "), line
    assert ("give --heads original" in line) == (heads == "original")


def test_the_choice_is_in_digests_and_in_files(folder, tmp_path, capsys):
    hub, original = (load(folder, heads=heads) for heads in LAYOUTS)
    assert hub.digest != original.digest and hub.latent_digest == original.latent_digest
    assert hub.digest_with("original") == original.digest
    source, options = str(EXAMPLES / "bird.flac"), ["--backbone", str(folder), "--threads", "1"]
    packed = str(tmp_path / "a.ddcm")
    assert main(["compress", source, "-o", packed, "--steps", "3", "--heads", "original", *options]) == 0
    assert main(["decompress", packed, "-o", str(tmp_path / "a.wav"), *options]) == 2
    assert "made with --heads original" in capsys.readouterr().err and not (tmp_path / "a.wav").exists()
    assert main(["decompress", packed, "-o", str(tmp_path / "a.wav"), "--heads", "original", *options]) == 0


def test_a_tie_is_no_verdict():
    same = {"hub": [0.5] * 7, "original": [0.501] * 7}
    assert verdict(same).startswith("undecided")
    mixed = {"hub": [0.5] * 7, "original": [0.9, 0.9, 0.9, 0.45, 0.45, 0.45, 0.45]}
    assert verdict(mixed).startswith("undecided")


def test_too_short(folder, tmp_path, capsys):
    import soundfile

    soundfile.write(tmp_path / "short.wav", [0.1] * 100, 16000)
    with pytest.raises(ValueError, match="40 ms"):
        check_heads(str(folder), str(tmp_path / "short.wav"))
