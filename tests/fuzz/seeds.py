"""The seed corpus, made of examples/: ``python -m tests.fuzz.seeds``. Small, because it is in the repository."""

import shutil
from pathlib import Path

import soundfile
import torch

from ddcm.audio.files import read_audio
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.compress import compress
from ddcm.codec.step_schedule import ExplicitSchedule, ParametricSchedule
from ddcm.quantize import HardQuantizer, ProjectedQuantizer, ResidualQuantizer, SoftQuantizer
from ddcm.quantize.pretrained import describe, save_codebook
from tests.fuzz.kinds import DIGEST, ROOT, codec
from tests.fuzz.run import CORPUS

FORMATS = {"wav": ("PCM_16", "PCM_U8", "FLOAT", "IMA_ADPCM"), "flac": ("PCM_16",), "ogg": ("VORBIS", "OPUS"),
           "mp3": ("MPEG_LAYER_III",), "aiff": ("PCM_24",), "au": ("ULAW",), "caf": ("ALAC_16",), "w64": ("PCM_16",),
           "rf64": ("PCM_32",)}  # fmt: skip


def audio(folder: Path, recording: torch.Tensor) -> None:
    for suffix, kinds in FORMATS.items():
        for kind in kinds:
            stereo = torch.stack([recording, -recording], dim=1) if kind in ("FLOAT", "PCM_24", "VORBIS") else recording
            size = 700 if kind in ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "PCM_U8") else 3000
            path = folder / f"{kind.lower()}.{suffix}"
            soundfile.write(path, stereo[:size].numpy(), 16000, subtype=kind, format=suffix.upper())


def ddcm(folder: Path, recording: torch.Tensor) -> None:
    torch.set_num_threads(1)
    backbone, codebook, residual = codec()
    curve = ParametricSchedule(4, 24, 8, 24)
    for name, options in {
        "turbo": dict(schedule=curve),
        "lists": dict(schedule=ExplicitSchedule((900, 500, 100, 0), (5, 0, 3)), seed=4),
        "prompt": dict(schedule=curve, prompt="a drum", guidance_scale=2.0),
        "classic": dict(mode="classic", schedule=curve, book="gaussian", noise_atoms=64),
        "vq": dict(mode="vq"),
        "hybrid": dict(mode="hybrid", schedule=curve, levels=2),
    }.items():
        made_with = residual if name == "hybrid" else codebook
        (folder / f"{name}.ddcm").write_bytes(compress(recording[:9000], backbone, CodecSettings(**options), made_with))


def codebooks(folder: Path) -> None:
    quantizers = {
        "hard": HardQuantizer(16, learn="ema"),
        "soft": SoftQuantizer(16),
        "residual": ResidualQuantizer(2, HardQuantizer(8)),
        "projected": ProjectedQuantizer(HardQuantizer(8, 4)),
    }
    for name, quantizer in quantizers.items():
        save_codebook(folder / name, quantizer, "tiny", DIGEST, {}, {"kbps": 3.5})
        (folder / name / "README.md").unlink()
    state = {f"quantizer.{name}": value for name, value in quantizers["hard"].state_dict().items()}
    about = describe(quantizers["hard"], "tiny", DIGEST, {})
    torch.save({"state_dict": state, "ddcm": about, "global_step": 3}, folder / "last.ckpt")


def main() -> None:
    recording = read_audio(ROOT / "examples/speech.flac")[8000:]
    shutil.rmtree(CORPUS, ignore_errors=True)
    for kind in ("audio", "ddcm", "codebook", "manifest"):
        (CORPUS / kind).mkdir(parents=True)
    audio(CORPUS / "audio", recording)
    ddcm(CORPUS / "ddcm", recording)
    codebooks(CORPUS / "codebook")
    rows = ["path,split", "a.wav,train", '"b, c.wav",val', "é/d.flac,test", "e.wav,"]
    (CORPUS / "manifest" / "spreadsheet.csv").write_bytes(("\ufeff" + "\r\n".join(rows)).encode())


if __name__ == "__main__":
    main()
