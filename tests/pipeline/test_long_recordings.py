"""Long recordings in pieces give what the whole gives."""

import numpy as np
import pytest
import soundfile
import torch

from ddcm.audio.files import read_audio
from ddcm.audio.level import normalise_level
from ddcm.audio.recording import spool_audio
from ddcm.cli import inference
from ddcm.cli.main import main
from ddcm.diffusion.noise import NoiseTimeline, latent_noise
from ddcm.pipeline import DDCMPipeline
from ddcm.pipeline.long_recordings import can_stream, stream
from ddcm.pipeline.stages import Conditioning
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import Codebook
from ddcm.recipes import RECIPES


@pytest.fixture(scope="module")
def pipe(tiny):
    quantizer = HardQuantizer(codebook_size=32).eval().requires_grad_(False)
    return DDCMPipeline(tiny, Codebook(quantizer, tiny.name, tiny.latent_digest, {}), batch_size=2)


@pytest.fixture(scope="module")
def long_file(tmp_path_factory, speech):
    """33.3 s of speech, drifting in level and off centre, stereo at 22.05 kHz."""
    path = tmp_path_factory.mktemp("long") / "long.wav"
    samples = np.tile(speech.numpy(), 20)[: round(33.3 * 22050)]
    samples = samples * np.linspace(0.2, 0.9, len(samples)) + 0.01
    soundfile.write(path, np.stack([samples, samples * 0.5], 1), 22050)
    return path


@pytest.mark.parametrize("rate", [16000, 22050])
def test_a_recording_is_what_read_audio_reads(long_file, rate):
    whole = read_audio(long_file, rate)
    with spool_audio(long_file, rate) as recording:
        assert len(recording) == len(whole)
        assert torch.allclose(recording[:], whole, atol=1e-6)
        assert torch.allclose(recording[70000:70100], whole[70000:70100], atol=1e-6)
        assert recording[len(whole) - 5 : len(whole) + 100].shape == (5,) and recording[-0:0].shape == (0,)
        wanted = normalise_level(whole)[1]
        assert recording.level.mean == pytest.approx(wanted.mean, abs=1e-7)
        assert recording.level.gain == pytest.approx(wanted.gain, rel=1e-5)


@pytest.mark.parametrize("samples, rate", [(1, 48000), (2, 8000), (700, 44100)])
def test_the_shortest_recordings(tmp_path, samples, rate):
    soundfile.write(tmp_path / "a.wav", np.full(samples, 0.1), rate)
    with spool_audio(tmp_path / "a.wav", 16000) as recording:
        assert len(recording) == len(read_audio(tmp_path / "a.wav"))
        assert len(recording[:]) == len(recording)


def test_noise_is_drawn_as_it_is_read():
    whole, timeline = latent_noise(5, 600, 8, 16), NoiseTimeline(5, 8, 16)
    for start, stop in ((0, 256), (240, 496), (344, 600), (344, 350)):
        assert torch.equal(timeline.read(start, stop), whole[:, start:stop])


@pytest.mark.parametrize(
    "verb, settings",
    [
        ("reconstruct", {}),
        ("reconstruct", {"recipe": "quantised", "vocoder": "refined"}),
        ("transform", {"steps": 4, "strength": 0.5}),
    ],
)
def test_streamed_is_what_the_whole_gives(pipe, long_file, verb, settings):
    audio = read_audio(long_file)
    wanted = getattr(pipe, verb)(audio, 16000, **settings, **({"seed": 3} if verb == "transform" else {}))
    setup = pipe.set_up(verb, **settings)
    pieces, steps = [], []
    conditioning = Conditioning() if verb == "transform" else None
    with spool_audio(long_file, 16000) as recording:
        info = stream(setup, recording, pieces.append, conditioning, 3, lambda *step: steps.append(step))
    assert max(map(len, pieces)) <= 16000 * 12 and len(pieces) > 3
    heard = torch.cat(pieces)
    assert heard.shape == audio.shape
    assert (heard - wanted.audio).abs().mean() < 1e-4 * wanted.audio.std()
    if verb == "reconstruct":
        assert steps == [(i + 1, 8) for i in range(8)]  # 2 batches in, 2 out, 4 pieces of audio
    else:
        assert steps == [(i + 1, 12) for i in range(12)] and info.unet_steps == wanted.info.unet_steps
    if setup.recipe.quantizer == "hard":
        assert info.perplexity == pytest.approx(wanted.info.perplexity, rel=1e-3)


def test_compressed_from_a_recording_is_the_same_file(pipe, long_file):
    whole = pipe.compress(read_audio(long_file), 16000, kbps=2, steps=3)
    with spool_audio(long_file, 16000) as recording:
        assert abs(len(pipe.compress(recording, 16000, kbps=2, steps=3)) - len(whole)) <= 2


def test_which_recipes_stream():
    streamed = {name for name, recipe in RECIPES.items() if recipe.verb != "generate" and can_stream(recipe)}
    assert streamed == {"matched", "refined", "quantised", "input-based"}


def test_the_command_line_streams_what_is_long(tmp_path, long_file, monkeypatch):
    monkeypatch.setattr(inference, "LONG_S", 20.0)
    monkeypatch.setattr(DDCMPipeline, "reconstruct", lambda *arguments, **more: pytest.fail("read as a whole"))
    assert main(["reconstruct", str(long_file), "-o", str(tmp_path / "out.flac"), "--backbone", "tiny"]) == 0
    assert soundfile.info(tmp_path / "out.flac").frames == round(33.3 * 16000)
