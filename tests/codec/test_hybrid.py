"""Mode hybrid: a trajectory and codes in one file, of the rate that was asked for."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddcm.cli.main import main
from ddcm.codec import hybrid
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.compress import compress
from ddcm.codec.decompress import decompress
from ddcm.codec.format import pack, unpack
from ddcm.codec.step_schedule import ParametricSchedule
from ddcm.errors import UserError
from ddcm.pipeline import DDCMPipeline
from ddcm.quantize import HardQuantizer, ResidualQuantizer
from ddcm.quantize.pretrained import Codebook

QUICK = ParametricSchedule(3, 24, 8, 24)


def make_pipe(tiny, quantizer) -> DDCMPipeline:
    codebook = Codebook(quantizer.eval().requires_grad_(False), tiny.name, tiny.latent_digest, {})
    return DDCMPipeline(tiny, codebook, batch_size=2)


@pytest.fixture(scope="module")
def pipe(tiny):
    quantizer = ResidualQuantizer(4, HardQuantizer(codebook_size=8))
    quantizer.initialise(torch.randn(2000, 8, generator=torch.Generator().manual_seed(0)))
    return make_pipe(tiny, quantizer)


@settings(max_examples=4)
@given(st.integers(1, 4), st.sampled_from([3000, 16000, 16000 * 11]), st.integers(1, 3))
def test_files_of_any_levels_and_windows_decode_in_any_batches(pipe, levels, samples, batch):
    audio, kept = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(levels)), []
    options = CodecSettings(mode="hybrid", levels=levels, schedule=QUICK, verify=True, mel_weight=0)
    data = compress(audio, pipe.backbone, options, pipe.codebook, batch, None, kept.append)
    header, payload = unpack(data)
    assert (header.mode, header.levels) == ("hybrid", levels) and header.first_level <= 4 - levels
    out = decompress(data, pipe.backbone, pipe.codebook, batch_size=3 - batch % 2)
    z = torch.cat(kept)
    assert out.audio.shape == audio.shape
    assert (out.latent - z).square().mean() < 1e-10 * z.square().mean()
    # The trajectory alone is a turbo file.
    turbo = replace(header, mode="turbo", codebook="", atoms=0, levels=0, first_level=0)
    base = decompress(pack(turbo, payload[: header.trajectory_bytes]), pipe.backbone).latent
    assert base.shape == out.latent.shape and not torch.equal(base, out.latent)


def test_codes_bring_the_latent_nearer(pipe, speech):
    def error(**options) -> float:
        return float(
            (pipe.decompress(pipe.compress(speech, 16000, schedule=QUICK, mel_weight=0, **options)).latent - z)
            .square()
            .mean()
        )

    kept: list[torch.Tensor] = []
    compress(speech, pipe.backbone, CodecSettings(mode="vq", mel_weight=0), pipe.codebook, on_latent=kept.append)
    z = torch.cat(kept)  # near the recording's
    errors = [error(), *(error(mode="hybrid", levels=levels) for levels in (1, 4))]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("kbps", [1.0, 4.9, 5.0, 8.0])
def test_the_rate_is_met(pipe, speech, kbps):
    audio = speech.repeat(4)[: 16000 * 6]
    data = pipe.compress(audio, 16000, mode="hybrid", kbps=kbps, steps=3, mel_weight=0)
    header, _ = unpack(data)
    assert len(data) / 750 == pytest.approx(kbps, rel=0.03)
    assert header.mode == ("hybrid" if kbps >= 5 else "turbo")  # below its rates a file is one of turbo


def test_a_wrong_estimate_is_mended(pipe, speech, monkeypatch):
    monkeypatch.setattr(hybrid, "estimate_code_bytes", lambda header: 1000)
    audio, done = speech.repeat(2)[: 16000 * 5], []
    data = pipe.compress(
        audio, 16000, mode="hybrid", kbps=6.0, steps=4, mel_weight=0, on_step=lambda *step: done.append(step)
    )
    assert len(data) / 625 == pytest.approx(6, rel=0.03) and done[-1] == (4, 4) and len(done) > 4


def test_codebooks_are_asked_for(pipe, speech):
    audio = speech[:9000]
    data = pipe.compress(audio, 16000, mode="hybrid", levels=2, schedule=QUICK, mel_weight=0)
    with pytest.raises(UserError, match="hybrid needs a fitted codebook"):
        DDCMPipeline(pipe.backbone).compress(audio, 16000, mode="hybrid")
    with pytest.raises(UserError, match="give it with --codebook"):
        DDCMPipeline(pipe.backbone).decompress(data)
    other = make_pipe(pipe.backbone, HardQuantizer(codebook_size=8))
    with pytest.raises(UserError, match="residual codebook"):
        other.compress(audio, 16000, mode="hybrid")
    with pytest.raises(UserError, match="made with codebook"):
        other.decompress(data)
    with pytest.raises(UserError, match=r"outside \[1, 4\]"):
        pipe.compress(audio, 16000, mode="hybrid", levels=5)
    header, payload = unpack(data)
    with pytest.raises(UserError, match="other levels"):
        pipe.decompress(pack(replace(header, first_level=3), payload))


def test_forged_codes_decode_to_something_or_are_refused(pipe, speech):
    header, payload = unpack(pipe.compress(speech[:9000], 16000, mode="hybrid", levels=2, schedule=QUICK, mel_weight=0))
    size, generator = len(payload) - header.trajectory_bytes, torch.Generator().manual_seed(0)
    for length in (size, size, size - 4, size + 4, 1, 0):
        forged = bytes(torch.randint(0, 256, (length,), generator=generator).tolist())
        try:
            out = pipe.decompress(pack(header, payload[: header.trajectory_bytes] + forged))
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert out.audio.shape == (9000,) and out.audio.isfinite().all()


def test_the_pocket_finds_its_residual_codebook(tmp_path, capsys):
    """Also where a file of turbo and one of hybrid are decoded by one command; ``inspect`` names the levels."""
    source, folder = "examples/bird.flac", tmp_path / "coded"
    words = ["--steps", "2", "--mel_weight", "0"]
    assert main(["compress", source, "-o", str(folder / "a.ddcm"), "--mode", "hybrid", "--kbps", "5", *words]) == 0
    assert main(["compress", source, "-o", str(folder / "b.ddcm"), *words]) == 0
    assert main(["decompress", str(folder), "-o", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").glob("*.wav")} == {"a.wav", "b.wav"}
    assert main(["inspect", str(folder / "a.ddcm")]) == 0
    facts = capsys.readouterr().out
    assert "hybrid" in facts and "first_level" in facts and "bytes of the codes" in facts
    assert main(["decompress", str(folder / "a.ddcm"), "-o", str(tmp_path / "a.wav"), "--codebook", "pocket-1024"]) == 2
    assert "made with codebook" in capsys.readouterr().err


def test_one_line_says_that_a_rate_has_no_levels(tmp_path, capsys):
    words = ["--steps", "2", "--mel_weight", "0", "--mode", "hybrid", "--overwrite", "-o", str(tmp_path)]
    sources = ["examples/bird.flac", "examples/drumroll.flac"]
    for more, count in ((["--kbps", "2"], 1), (["--kbps", "6"], 0), (["--levels", "1"], 0)):
        assert main(["compress", *sources, *words, *more]) == 0
        assert capsys.readouterr().err.count("codes levels from 5 kbps; these are turbo files") == count
