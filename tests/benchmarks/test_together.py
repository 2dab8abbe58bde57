"""What the benchmarks code in common UNet calls are whole files, and some levels of a residual codebook are a file."""

from dataclasses import replace

import pytest
import torch

from benchmarks.together import compress, in_lengths
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.format import pack, unpack
from ddcm.codec.step_schedule import ParametricSchedule
from ddcm.errors import UserError
from ddcm.pipeline import DDCMPipeline
from ddcm.quantize import HardQuantizer, ResidualQuantizer
from ddcm.quantize.pretrained import Codebook


@pytest.mark.parametrize("book", ["hadamard", "gaussian"])
def test_recordings_coded_together_decode_alone(tiny, speech, book):
    audios = [speech[:10240], 0.1 * speech[10240:20480] + 0.05, torch.zeros(10240)]
    settings = CodecSettings(schedule=ParametricSchedule(4, 24, 8, 24, 900, 50), book=book, noise_atoms=64)
    coded = compress(audios, tiny, settings)
    for audio, one in zip(audios, coded, strict=True):
        out = DDCMPipeline(tiny).decompress(one.data)
        assert (out.latent - one.z).square().mean().sqrt() < 1e-5 * one.z.square().mean().sqrt()
        assert out.audio.shape == audio.shape and one.calls == 4
    assert len({one.data for one in coded}) == 3
    with pytest.raises(UserError, match="one window"):
        compress([torch.zeros(16000 * 11)], tiny, settings)


def test_groups_are_of_one_length():
    audios = [torch.zeros(size) for size in (5, 7, 5, 5, 7)]
    assert in_lengths(audios, 2) == [[0, 2], [3], [1, 4]]


def test_the_first_levels_of_a_residual_codebook_are_a_file(tiny, speech):
    quantizer = ResidualQuantizer(3, HardQuantizer(codebook_size=16))
    quantizer.initialise(torch.randn(2000, 8, generator=torch.Generator().manual_seed(0)))
    pipe = DDCMPipeline(tiny, Codebook(quantizer.eval().requires_grad_(False), tiny.name, tiny.latent_digest, {}))
    files = [pipe.compress(speech[:16000], 16000, mode="vq", levels=levels) for levels in (1, 2, None)]
    assert [unpack(data)[0].levels for data in files] == [1, 2, 3] and len(files[0]) < len(files[1]) < len(files[2])
    latents = [pipe.decompress(data).latent for data in files]
    errors = [float((latent - latents[2]).square().mean()) for latent in latents]
    assert errors[0] > errors[1] > errors[2] == 0
    with pytest.raises(UserError, match="other levels"):
        header, payload = unpack(files[0])
        pipe.decompress(pack(replace(header, levels=4), payload))
    with pytest.raises(UserError, match=r"outside \[1, 3\]"):
        pipe.compress(speech[:16000], 16000, mode="vq", levels=4)
    with pytest.raises(UserError, match="modes vq"):
        pipe.compress(speech[:16000], 16000, levels=1)
