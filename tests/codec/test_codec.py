"""The codec on a random backbone: the decoder is the encoder, rates are those of the disk, nothing untrue decodes."""

import subprocess
import sys
import zlib
from dataclasses import replace

import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddcm.audio.level import Level
from ddcm.backbone.tiny import tiny_backbone
from ddcm.cli.main import main
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.compress import compress
from ddcm.codec.decompress import decompress, decompress_pieces, open_stream
from ddcm.codec.format import pack, unpack
from ddcm.codec.step_schedule import ExplicitSchedule, ParametricSchedule
from ddcm.errors import UserError
from ddcm.pipeline import DDCMPipeline
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import Codebook
from tests.conftest import EXAMPLES, ROOT, sounds

QUICK = ParametricSchedule(4, 24, 8, 24)


@pytest.fixture(scope="module")
def pipe(tiny):
    quantizer = HardQuantizer(codebook_size=32).eval().requires_grad_(False)
    return DDCMPipeline(tiny, Codebook(quantizer, tiny.name, tiny.latent_digest, {}), batch_size=2)


@pytest.mark.parametrize(
    "seconds, options",
    [
        (11, dict(schedule=ParametricSchedule(2, 24, 8, 24))),
        (1, dict(schedule=ExplicitSchedule((900, 500, 100, 0), (5, 0, 3)), seed=4)),
        (1, dict(schedule=QUICK, bases=1)),
        (11, dict(schedule=ParametricSchedule(3, 24, 8, 24), bases=4, prompt="rain")),
        (1, dict(mode="classic", schedule=QUICK, book="gaussian", noise_atoms=64)),
        (11, dict(mode="vq")),
        (1, dict(schedule=QUICK, prompt="a drum", guidance_scale=2.0)),
    ],
)
def test_the_decoder_is_the_encoder_bit_for_bit(pipe, speech, seconds, options):
    kept = []
    audio = speech.repeat(4)[: 16000 * seconds]
    data = compress(audio, pipe.backbone, CodecSettings(**options, verify=True), pipe.codebook, 2, None, kept.append)
    out = decompress(data, pipe.backbone, pipe.codebook, batch_size=2)
    assert (
        torch.equal(out.latent, torch.cat(kept)) and len(kept) == 1 + seconds // 11 and out.audio.shape == audio.shape
    )
    assert pipe.decompress(data).info.kbps == pytest.approx(len(data) / 125 / seconds)


def test_a_fresh_process_decodes_the_same(tmp_path, pipe):
    source = str(EXAMPLES / "bird.flac")
    assert main(["compress", source, "-o", str(tmp_path / "a.ddcm"), "--backbone", "tiny", "--steps", "3"]) == 0
    words = [["decompress", str(tmp_path / "a.ddcm"), "-o", str(tmp_path / f"{name}.wav"), "--backbone", "tiny",
              "--batch_size", batch] for name, batch in (("b", "1"), ("c", "3"))]  # fmt: skip
    code = f"from ddcm.cli.main import main; raise SystemExit(max(main(line) for line in {words}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "c.wav").read_bytes()
    out = pipe.decompress((tmp_path / "a.ddcm").read_bytes()).audio
    written = torch.from_numpy(soundfile.read(tmp_path / "b.wav", dtype="float32")[0])
    assert (written - out / out.abs().max().clamp(min=1)).abs().max() < 1e-4  # scaled where it would clip


def test_pieces_are_the_whole(pipe):
    """Windows that were decoded without loss join to the whole, and so does what is vocoded piece by piece."""
    audio = torch.randn(16000 * 11 + 77, generator=torch.Generator().manual_seed(0)) * 0.1
    data = pipe.compress(audio, 16000, schedule=ParametricSchedule(2, 24, 8, 24))
    whole = decompress(data, pipe.backbone, vocoder="backbone")
    layout, level = whole.header.layout, Level(whole.header.mean, 2 ** (whole.header.gain / 256))
    assert len(layout.starts) == 2 and whole.mel.shape == (1, 1, layout.total, 64)
    for window, start in zip(whole.latent.split(1), layout.starts, strict=True):
        alone = slice(80 if start else 0, layout.size if start else layout.size - 80)  # no neighbour reaches there
        mel = whole.mel[:, :, start : start + layout.size]
        assert torch.allclose(pipe.backbone.decode(window)[:, :, alone], mel[:, :, alone], atol=1e-5)
    assert torch.allclose(whole.audio, level.undo(pipe.backbone.vocode(whole.mel)[0, : len(audio)]), atol=1e-4)
    pieces = torch.cat([*decompress_pieces(data, pipe.backbone, vocoder="backbone")])
    assert torch.equal(pieces, whole.audio)


def test_the_planned_size_is_the_size(pipe, speech):
    data = pipe.compress(speech.repeat(4)[: 16000 * 5], 16000, kbps=0.5, steps=3)
    assert len(data) * 8 / 5000 == pytest.approx(0.5, rel=0.03) and len(data) - len(unpack(data)[1]) < 64


@pytest.mark.parametrize("samples", [1, 700, 16001])
def test_short_and_silent_recordings_work(pipe, samples):
    for audio in (torch.zeros(samples), torch.randn(samples)):
        out = pipe.decompress(pipe.compress(audio, 16000, steps=2))
        assert out.audio.shape == (samples,) and torch.isfinite(out.audio).all()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(kbps=400.0), "nearest valid rate"), (dict(kbps=0.001), "nearest valid rate"), (dict(kbps=-1.0),
        "positive"), (dict(quality="superb"), "low, medium"), (dict(kbps=1.0, quality="low"), "give one"),
        (dict(steps=1), "nearest"), (dict(mode="vp"), "vq"), (dict(mode="vq", kbps=1.0), "codebook"),
        (dict(coefficient_bits=1), "mute"), (dict(noise_atoms=100), "power of two"),
        (dict(bases=3), "bases 3 is not a power of two"), (dict(bases=256), "up to 128"), (dict(seed=-1), "seed"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(pipe, options, message):
    with pytest.raises(UserError, match=message):
        pipe.compress(torch.randn(16000 * 6), 16000, **options)


def test_other_backbones_and_codebooks_are_refused_by_name(pipe):
    data = pipe.compress(torch.randn(9000), 16000, schedule=QUICK)
    with pytest.raises(UserError, match=f"made with backbone {pipe.backbone.digest[:8]}"):
        DDCMPipeline(tiny_backbone(seed=1)).decompress(data)
    with pytest.raises(UserError, match="--null"):
        DDCMPipeline(tiny_backbone(null="stock")).decompress(data)
    coded = pipe.compress(torch.randn(9000), 16000, mode="vq")
    with pytest.raises(UserError, match="give it with --codebook"):
        DDCMPipeline(pipe.backbone).decompress(coded)
    other = HardQuantizer(codebook_size=16).eval()
    with pytest.raises(UserError, match="made with codebook"):
        DDCMPipeline(pipe.backbone, Codebook(other, "", pipe.backbone.latent_digest, {})).decompress(coded)


def damaged(file: bytes, data) -> bytes:
    """A file after a flip, a cut, a swap of blocks or a forged header, which may come with a right checksum."""
    out = bytearray(file)
    kind = data.draw(st.sampled_from(["flip", "cut", "swap", "forge", "grow"]))
    at = data.draw(st.integers(0, len(out) - 1))
    if kind == "flip":
        out[at] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del out[at:]
    elif kind == "swap":
        out = out[at:] + out[:at]
    elif kind == "grow":
        out += data.draw(st.binary(min_size=1, max_size=50))
    else:  # a right checksum over a wrong header
        at = data.draw(st.integers(5, min(45, len(out) - 5)))
        out[at : at + 1] = data.draw(st.binary(min_size=1, max_size=5))
        out = out[:-4] + zlib.crc32(out[:-4]).to_bytes(4, "little")
    return bytes(out)


def refused_or_bounded(pipe, files, data):
    file = data.draw(st.sampled_from(files))
    bad = damaged(file, data)
    try:
        header, _ = open_stream(bad, pipe.backbone, pipe.codebook)
    except UserError as error:
        assert "\n" not in str(error)
        return
    # Only what has a right checksum comes so far; then work is in proportion to the bytes.
    assert zlib.crc32(bad[:-4]).to_bytes(4, "little") == bad[-4:]
    most = 8 if header.mode == "vq" else 2.5  # windows a byte: a range coder may need less than a bit for silence
    assert len(header.layout.starts) <= max(1, most * len(bad)) and header.layout.total * 160 < 1 << 30


@pytest.fixture(scope="module")
def files(pipe):
    audio = torch.randn(16000, generator=torch.Generator().manual_seed(0)) * 0.1
    options = (dict(schedule=QUICK), dict(mode="vq"), dict(mode="classic", schedule=QUICK, prompt="a drum"))
    return [pipe.compress(audio, 16000, **row) for row in options]


FUZZ = dict(deadline=None, suppress_health_check=list(HealthCheck))


@settings(max_examples=500, **FUZZ)
@given(data=st.data())
def test_damaged_files_are_refused(pipe, files, data):
    refused_or_bounded(pipe, files, data)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_forged_payloads_decode_to_something_or_are_refused(pipe, files, mode):
    header, payload = unpack(files[mode])
    generator = torch.Generator().manual_seed(mode)
    for _ in range(3):
        noise = torch.randint(0, 256, (len(payload),), generator=generator).tolist()
        try:
            out = pipe.decompress(pack(header, bytes(noise)))
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert out.audio.shape == (header.samples,)


def test_generation_leaves_a_file_that_needs_no_prompt(pipe):
    data, out = pipe.generate_compressed("a drum", 1.0, seed=1, schedule=QUICK)
    assert unpack(data)[0].prompt == "" and torch.equal(pipe.decompress(data).latent, out.latent)
    others = [
        pipe.generate_compressed(*arguments, schedule=QUICK)[0]
        for arguments in (("a bird", 1.0, 1), ("a drum", 1.0, 2))
    ]
    assert data not in others
    with pytest.raises(UserError, match="outside"):
        pipe.generate_compressed("a drum", 11.0)


def test_a_file_keeps_the_interval_of_the_cache(pipe):
    audio, options = torch.randn(16000, generator=torch.Generator().manual_seed(0)) * 0.1, dict(kbps=2.0, steps=14)
    plain, cached = (pipe.compress(audio, 16000, cache_interval=n, verify=True, **options) for n in (1, 3))
    assert unpack(plain)[0].cache_interval == 1 and unpack(cached)[0].cache_interval == 3
    # Encoder and decoder leave out the same layers: with another interval the file is another sound.
    other = replace(unpack(cached)[0], cache_interval=2)
    wrong = pipe.decompress(pack(other, unpack(cached)[1]))
    assert not torch.equal(wrong.latent, pipe.decompress(cached).latent)
    data, out = pipe.generate_compressed("a drum", 1.0, seed=1, cache_interval=3, **options)
    assert unpack(data)[0].cache_interval == 3 and torch.equal(pipe.decompress(data).latent, out.latent)
    with pytest.raises(UserError, match=r"cache_interval 0 is outside \[1, 255\]"):
        pipe.compress(audio, 16000, cache_interval=0)


def test_inspect_says_what_a_file_is_without_torch(tmp_path, files):
    (tmp_path / "a.ddcm").write_bytes(files[0])
    inspected = f"main(['inspect', {str(tmp_path / 'a.ddcm')!r}])"
    code = f"import sys; from ddcm.cli.main import main; {inspected}; print('torch' in sys.modules)"
    text = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "timesteps" in text and "turbo" in text and text.splitlines()[-1] == "False"


def test_a_folder_there_and_back(tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    soundfile.write(source / "a.wav", torch.randn(8000).numpy() * 0.1, 16000)
    soundfile.write(source / "b.wav", torch.randn(4000).numpy() * 0.1, 8000)
    (source / "c.wav").write_text("no audio")
    tiny = ["--backbone", "tiny"]
    assert main(["compress", str(source), "-o", str(tmp_path / "x"), "--steps", "2", *tiny]) == 2
    assert "c.wav" in capsys.readouterr().err
    (tmp_path / "x" / "d.ddcm").write_bytes(b"ddcm\x02 cut")
    assert main(["decompress", str(tmp_path / "x"), "-o", str(tmp_path / "y"), *tiny]) == 2
    assert "d.ddcm: the .ddcm file is damaged" in capsys.readouterr().err
    assert {p.name: soundfile.info(p).frames for p in sounds(tmp_path / "y")} == {"a.wav": 8000, "b.wav": 8000}
    words = ["generate", "--compressed", "--prompt", "a drum", "--duration_s", "0.5", "--steps", "2"]
    assert main([*words, "-o", str(tmp_path / "g.wav"), *tiny]) == 0
    assert (tmp_path / "g.ddcm").exists() and soundfile.info(tmp_path / "g.wav").frames == 8000
