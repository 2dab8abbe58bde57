"""A file decodes to the same sound with other instruction sets, threads, windows in a call and precisions.

The choices of the encoder are in the file, so that the rounding of the decoder shrinks on the way. The first tests use
the pocket backbone: a random one has no way back to the sound.
"""

import os
import subprocess
import sys

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from benchmarks.portability import DECODE
from ddcm.audio.mel import mel_error_db
from ddcm.backbone import load
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.compress import compress
from ddcm.codec.decompress import decompress
from ddcm.codec.format import unpack
from ddcm.codec.step_schedule import ParametricSchedule
from ddcm.errors import UserError
from ddcm.pipeline import DDCMPipeline
from tests.conftest import EXAMPLES, ROOT

POCKET = ROOT / "checkpoints" / "pocket"


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """Bytes, latent and mel of a file of the pocket backbone, as it decodes here."""
    pipe = DDCMPipeline(load(str(POCKET)))
    audio, rate = soundfile.read(EXAMPLES / "speech.flac", dtype="float32", frames=25600)
    data = pipe.compress(torch.from_numpy(audio), rate, kbps=2, steps=12)
    out = pipe.decompress(data, vocoder="backbone")
    path = tmp_path_factory.mktemp("coded") / "speech.ddcm"
    path.write_bytes(data)
    return path, out.latent, out.mel


def difference_db(mel: torch.Tensor, other: torch.Tensor) -> float:
    return mel_error_db(mel, other)


@pytest.mark.parametrize(
    "environment, threads",
    [
        ({"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}, 2),
        ({"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}, 1),
    ],
)
def test_other_instruction_sets_decode_to_the_same_mel(coded, tmp_path, environment, threads):
    path, latent, mel = coded
    target = tmp_path / "out.safetensors"
    command = [sys.executable, "-c", DECODE, *map(str, (path, target, POCKET, threads, 1, "float32"))]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | environment)
    out = load_file(target)
    assert float((out["latent"] - latent).square().mean().sqrt()) < 1e-4
    assert difference_db(out["mel"], mel) < 0.01


def test_half_precision_decodes_files_of_full_precision(coded):
    path, _, mel = coded
    out = decompress(path.read_bytes(), load(str(POCKET), dtype="float16"), vocoder="backbone")
    assert difference_db(out.mel, mel) < 0.03
    with pytest.raises(UserError, match="float32") as error:
        decompress(path.read_bytes(), load(str(POCKET), dtype="bfloat16"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mode", ["turbo", "classic"])
@pytest.mark.parametrize("encoder, decoder", [(1, 3), (3, 1), (2, 64)])
def test_any_number_of_windows_in_a_call_decodes_any_file(tiny, speech, mode, encoder, decoder):
    """Three windows. Even a random backbone, which has no way back to the sound, does not enlarge the rounding much."""
    kept: list[torch.Tensor] = []
    settings = CodecSettings(mode=mode, schedule=ParametricSchedule(3, 24, 8, 12), verify=True)
    data = compress(speech.repeat(8)[: 16000 * 24], tiny, settings, None, encoder, None, kept.append)
    assert len(kept) == 3
    out = decompress(data, tiny, batch_size=decoder)
    latent = torch.cat(kept)
    assert (out.latent - latent).square().mean().sqrt() < 1e-5 * latent.square().mean().sqrt()


def test_the_header_does_not_name_the_machine(tiny, speech):
    files = []
    before = torch.get_num_threads()
    for threads, batch_size in ((1, 1), (2, 5)):
        torch.set_num_threads(threads)
        files.append(DDCMPipeline(tiny, batch_size=batch_size).compress(speech[:8000], 16000, steps=2))
    torch.set_num_threads(before)
    headers = [unpack(data)[0] for data in files]
    assert headers[0] == headers[1]
