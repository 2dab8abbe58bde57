"""The linear start of the VAE: a chain of convolutions, and the whole network that begins as it."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")

from diffusers import AutoencoderKL

from ddcm.audio.files import read_audio
from ddcm.audio.mel import log_mel
from ddcm.errors import UserError
from pocket import linear
from pocket.vae import LinearStage, VAEStage, untrained

EXAMPLES = Path(__file__).parents[2] / "examples"


def mel_of(name: str, gain: float = 1.0) -> torch.Tensor:
    """(1, 1, 64, 64) of a recording's beginning."""
    return log_mel(gain * read_audio(EXAMPLES / f"{name}.flac")[None, : 64 * 160])


@pytest.fixture
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    vae = untrained()
    linear.initialise(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3)
    mel = mel_of("melodic")
    for _ in range(5):
        (linear.decode(vae, linear.encode(vae, mel).sample()) - mel).abs().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return vae


def test_the_chain_is_linear(vae):
    a, b = mel_of("speech"), mel_of("bird")
    with torch.no_grad():
        sides = [linear.decode(vae, linear.encode(vae, mel).mode()) for mel in ((a + b) / 2, a, b)]
    torch.testing.assert_close(sides[0], (sides[1] + sides[2]) / 2, rtol=1e-3, atol=1e-4)


def test_the_whole_network_begins_as_the_chain_has_ended(vae):
    """At any loudness, and for other sounds than those that it was unfolded with."""
    with torch.no_grad():
        for name, gain in (("speech", 1.0), ("drumloop", 0.01), ("bird", 3.0)):
            mel = mel_of(name, gain)
            posterior = linear.encode(vae, mel)
            z, heard = posterior.mode(), linear.decode(vae, posterior.mode())
            whole = untrained()
            whole.load_state_dict(vae.state_dict())
            assert (whole.decode(z).sample - heard).abs().mean() > 0.1 * heard.std()
            linear.unfold(whole, mel_of("melodic"))
            again = whole.encode(mel).latent_dist
            assert (again.mode() - z).abs().mean() < 0.01 * z.std()
            assert (again.logvar - posterior.logvar).abs().mean() < 0.01 * posterior.logvar.std()
            assert (whole.decode(z).sample - heard).abs().mean() < 0.01 * heard.std()


def test_all_of_the_unfolded_network_learns(vae):
    mel = mel_of("speech")
    linear.unfold(vae, mel)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3)
    before = {name: x.clone() for name, x in vae.named_parameters()}
    for _ in range(3):
        (vae.decode(vae.encode(mel).latent_dist.sample()).sample - mel).abs().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not [name for name, x in vae.named_parameters() if torch.equal(x, before[name])]


def test_a_stage_begins_with_what_the_chain_has_learned(vae, tmp_path, monkeypatch):
    monkeypatch.setattr(VAEStage, "log_dict", lambda *_, **__: None)
    batch = {"audio": torch.stack([read_audio(EXAMPLES / f"{name}.flac")[:10240] for name in ("bird", "speech")])}
    chain = LinearStage(quantise_from=0, quantised_share=0.5)
    chain.vae.load_state_dict(vae.state_dict())
    chain.training_step(batch, 0)
    (tmp_path / "linear").mkdir()
    torch.save({"state_dict": chain.state_dict()}, tmp_path / "linear" / "last.ckpt")
    stage = VAEStage(runs=str(tmp_path))
    atoms = stage.quantizer.codebook.clone()
    assert not stage.whole and stage.clustered
    stage.training_step(batch, 0)
    mel = log_mel(batch["audio"])
    z, there = stage.vae.encode(mel).latent_dist.mode(), linear.encode(vae, mel).mode()
    assert stage.whole and (z - there).abs().mean() < 0.01 * there.std()
    assert torch.equal(atoms, chain.quantizer.codebook)
    resumed = VAEStage(runs=str(tmp_path))
    resumed.load_state_dict(stage.state_dict())
    weights = resumed.vae.encoder.conv_out.weight.clone()
    resumed.training_step(batch, 1)
    assert torch.equal(weights, resumed.vae.encoder.conv_out.weight)
    with pytest.raises(UserError, match="stage vae"):
        chain.start_from(tmp_path)


def test_latents_end_without_a_mean_and_mels_as_they_were(monkeypatch):
    monkeypatch.setattr(VAEStage, "log_dict", lambda *_, **__: None)
    audio = read_audio(EXAMPLES / "speech.flac")[None, 8000:9280]
    stage = VAEStage()
    stage.vae.quant_conv.bias.data[:8] += 3
    for _ in range(300):
        stage.training_step({"audio": audio}, 0)
    stage.eval()
    mel = log_mel(audio)
    z = stage.vae.encode(mel).latent_dist.mode()
    heard, quantised = (stage.vae.decode(x).sample for x in (z, stage.quantizer(z).z))
    stage.on_train_end()
    z = stage.vae.encode(mel).latent_dist.mode()
    assert z.mean((0, 2, 3)).abs().max() < 0.01 and not stage.middle.any()
    for before, after in ((heard, z), (quantised, stage.quantizer(z).z)):
        torch.testing.assert_close(stage.vae.decode(after).sample, before, atol=1e-3, rtol=1e-3)
