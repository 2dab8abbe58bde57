"""Calls that somebody who knows diffusers writes at once: each works, or its error names the nearest valid one."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch

from ddcm.audio.files import limit_to_full_scale, read_audio
from ddcm.backbone import load
from ddcm.backbone.tiny import tiny_backbone
from ddcm.errors import UserError
from ddcm.pipeline import DDCMPipeline
from ddcm.pipeline.output import Outputs
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import Codebook, save_codebook
from tests.conftest import EXAMPLES, ROOT
from tests.helpers.fake_gpu import FakeGpu
from tests.runtime.test_fake_gpu import OneOperation

FEW = {"num_inference_steps": 3}
SHORT = FEW | {"audio_length_in_s": 0.5}


@pytest.fixture(scope="module")
def pipe(tiny):
    quantizer = HardQuantizer(codebook_size=32).eval().requires_grad_(False)
    return DDCMPipeline(tiny, Codebook(quantizer, tiny.name, tiny.latent_digest, {}))


@pytest.fixture(scope="module")
def clip(speech):
    return speech[8000:16000]


def test_a_prompt(pipe):
    out = pipe("rain", **SHORT)
    assert torch.equal(out.audio, pipe.generate("rain", 0.5, steps=3).audio) and len(out.audio) == 8000


def test_audio_and_a_prompt(pipe, clip):
    out = pipe(audio=(clip, 16000), prompt="rain", strength=0.5, **FEW)
    assert torch.equal(out.audio, pipe.transform(clip, 16000, "rain", strength=0.5, steps=3).audio)
    plain = pipe(audio=clip, sampling_rate=16000, recipe="quantised")
    assert torch.equal(plain.audio, pipe.reconstruct(clip, 16000, "quantised").audio)


@pytest.mark.parametrize("form", ["path", "str", "pair", "reversed", "dictionary", "output", "numpy"])
def test_audio_in_every_usual_form(pipe, clip, tmp_path, form):
    soundfile.write(tmp_path / "a.wav", clip.numpy(), 16000, subtype="FLOAT")
    wanted = pipe.reconstruct(clip, 16000, "matched")
    audio = {
        "path": tmp_path / "a.wav", "str": str(tmp_path / "a.wav"), "pair": (clip.numpy(), 16000),
        "reversed": (16000, clip.numpy()), "dictionary": {"array": clip.numpy(), "sampling_rate": 16000},
        "output": wanted, "numpy": clip.numpy(),
    }[form]  # fmt: skip
    out = pipe(audio=audio, recipe="matched", sample_rate=16000 if form == "numpy" else None)
    assert out.audio.shape == clip.shape and (form == "output" or torch.equal(out.audio, wanted.audio))
    assert len(pipe.compress(audio, 16000 if form == "numpy" else None, mode="vq")) > 20


def test_an_array_needs_its_rate(pipe, clip):
    with pytest.raises(UserError, match=r"give sample_rate in Hz, or \(array, rate\), or a path"):
        pipe(audio=clip)


def test_lists_of_prompts(pipe):
    outs = pipe(["rain", "a drum"], seed=3, **SHORT)
    assert isinstance(outs, Outputs) and len(outs) == 2 and len(outs.audios) == 2
    for out, prompt in zip(outs, ("rain", "a drum"), strict=True):
        assert torch.equal(out.audio, pipe(prompt, seed=3, **SHORT).audio)
    assert torch.equal(pipe(["rain"], seed=[3], **SHORT)[0].audio, outs[0].audio)


def test_lists_of_clips(pipe, clip):
    outs = pipe(audio=[(clip, 16000), EXAMPLES / "bird.flac"], prompt="rain", strength=0.3, **FEW)
    assert isinstance(outs, Outputs) and torch.equal(
        outs[0].audio, pipe.transform(clip, 16000, "rain", **{"strength": 0.3, "steps": 3}).audio
    )
    assert len(outs[1].audio) == len(pipe.reconstruct(EXAMPLES / "bird.flac").audio)
    several = pipe(audio=[clip, clip[:4000]], prompt=["rain", "wind"], sample_rate=16000, **FEW)
    assert [len(audio) for audio in several.audios] == [8000, 4000] and several[1].info.prompt == "wind"
    numbers = pipe(audio=clip[:800].tolist(), sample_rate=16000, recipe="matched")  # one clip, as before
    assert len(numbers.audio) == 800


def test_lists_of_unequal_length(pipe):
    with pytest.raises(UserError, match="prompt 2, seed 3"):
        pipe(["rain", "wind"], seed=[1, 2, 3])
    with pytest.raises(UserError, match="prompt 0"):
        pipe([])
    with pytest.raises(UserError, match=r"pipe\(prompt="):
        pipe.generate(["rain", "wind"], **SHORT)


def test_generators_and_seeds(pipe):
    def run(**options):
        return pipe("rain", **SHORT, **options).audio

    def made(seed=5):
        return torch.Generator().manual_seed(seed)

    assert torch.equal(run(generator=made()), run(generator=made())) and torch.equal(run(seed=7), run(seed=7))
    assert not torch.equal(run(generator=made()), run(generator=made(6)))
    generator = made()
    first, second = pipe(["rain", "rain"], generator=generator, **SHORT).audios
    assert not np.array_equal(first, second)  # one after the other from one generator, as in diffusers
    apart = pipe(["rain", "rain"], generator=[made(), made()], **SHORT).audios
    assert np.array_equal(apart[0], apart[1]) and np.array_equal(apart[0], first)
    with pytest.raises(UserError, match="generator and another argument both stand for seed"):
        run(seed=1, generator=made())
    with pytest.raises(UserError, match="a number is a seed"):
        run(generator=5)


def test_names_of_diffusers(pipe):
    same = dict(negative_prompt="wind", guidance_scale=2.0)
    out = pipe("rain", num_inference_steps=4, audio_length_in_s=0.3, num_waveforms_per_prompt=2, **same)
    here = pipe.generate("rain", steps=4, duration_s=0.3, n=2, **same)
    assert torch.equal(out.audio, here.audio) and len(out.audios) == 1 + len(here.others) == 2
    assert out.info.recipe == here.info.recipe and out.info.negative_prompt == "wind"
    with pytest.raises(UserError, match="both stand for steps"):
        pipe("rain", steps=4, num_inference_steps=4)
    assert torch.equal(pipe.generate("rain", num_inference_steps=4, audio_length_in_s=0.3, negative_prompt=None).audio,
                       pipe.generate("rain", 0.3, steps=4).audio)  # fmt: skip


def test_output_types(pipe):
    out = pipe("rain", **SHORT)
    assert isinstance(out.audios[0], np.ndarray) and np.array_equal(out.audios[0], out.audio.numpy())
    assert torch.equal(pipe("rain", output_type="pt", **SHORT).audios[0], out.audio)
    assert torch.equal(pipe("rain", output_type="latent", **SHORT).audios[0], out.latent)
    (audios,) = pipe("rain", return_dict=False, **SHORT)
    assert np.array_equal(audios[0], out.audio.numpy())
    with pytest.raises(UserError, match="use one of: np, pt, latent"):
        pipe("rain", output_type="pil")


def test_a_callback_on_each_step(pipe):
    seen = []

    def callback(caller, step, timestep, kwargs):
        seen.append((step, timestep, kwargs["latents"].shape))
        assert caller is pipe
        return kwargs

    out = pipe("rain", callback_on_step_end=callback, **SHORT)
    assert torch.equal(out.audio, pipe("rain", **SHORT).audio)
    assert [step for step, _, _ in seen] == [0, 1, 2] and seen[0][1] > seen[-1][1] == 0
    assert {shape for _, _, shape in seen} == {(1, 8, 13, 16)}
    with pytest.raises(UserError, match="cannot change latents"):
        pipe("rain", callback_on_step_end=lambda *a: {"latents": torch.zeros(1)}, **SHORT)


@pytest.mark.parametrize(
    "name, nearest",
    [("step", "steps"), ("num_inference_step", "num_inference_steps"), ("promt_negative", "negative_prompt"),
     ("eta", "solver"), ("latents", "seed"), ("callback", "callback_on_step_end"), ("sede", "seed"),
     ("audio_length", "audio_length_in_s")],
)  # fmt: skip
def test_unknown_names_are_answered_with_the_nearest(pipe, name, nearest):
    with pytest.raises(UserError, match=f"^{name} is not known here; the nearest is '{nearest}'$"):
        pipe("rain", **{name: 1})


def test_unknown_names_of_every_other_call(pipe, clip):
    for verb, name, nearest in (("compress", "kpbs", "kbps"), ("transform", "strenght", "strength"),
                                ("reconstruct", "limit", "limiter")):  # fmt: skip
        with pytest.raises(UserError, match=f"nearest is '{nearest}'"):
            getattr(pipe, verb)(clip, 16000, **{name: 1})
    with pytest.raises(UserError, match="nearest is 'device'"):
        DDCMPipeline.from_pretrained("tiny", devise="cpu")
    with pytest.raises(UserError, match="give a prompt, audio, or both"):
        pipe()


def test_devices_and_dtypes(pipe):
    pipe = DDCMPipeline.from_pretrained("tiny", torch_dtype=torch.bfloat16)
    assert (pipe.device, pipe.dtype) == (torch.device("cpu"), torch.bfloat16)
    assert pipe.to("cpu") is pipe and pipe.dtype == torch.bfloat16
    before = pipe.backbone.digest
    assert pipe.to("cpu", torch.float32).dtype == torch.float32 and pipe.backbone.digest == before
    assert pipe.to(dtype=torch.float16).dtype == torch.float16
    assert DDCMPipeline.from_pretrained("tiny", dtype="float16").dtype == torch.float16
    with pytest.raises(UserError, match="cpu always can"):
        pipe.to("cuda:7")
    assert pipe.device == torch.device("cpu") and pipe.dtype == torch.float16  # as it was
    with pytest.raises(UserError, match="stays where it was made"):
        DDCMPipeline(load("docs.examples.backbone:Blocks")).to("cpu")


class OneForward(OneOperation):
    read_condition = staticmethod(OneOperation.forward.read_condition)


def test_one_network_at_a_time_is_on_a_small_gpu(clip):
    """On a GPU that is not there: shapes and devices are checked, values are not."""
    with FakeGpu():
        pipe = DDCMPipeline(tiny_backbone())
        pipe.enable_model_cpu_offload()
        assert pipe.device.type == "cuda"
        pipe.backbone._ready("unet").forward = OneForward()  # a whole UNet takes seconds without values
        pipe.transform(clip, 16000, "rain", strength=0.5, quantizer="none", recipe="full-diffusion", n=1, steps=3)
        networks = {name: pipe.backbone.__dict__[name] for name in ("vae", "unet", "vocoder")}
        places = {name: {p.device.type for p in network.parameters()} for name, network in networks.items()}
        assert places == {"vae": {"cpu"}, "unet": {"cpu"}, "vocoder": {"cuda"}}  # the last one that computed
        pipe.backbone._ready("unet")
        assert {p.device.type for p in networks["unet"].parameters()} == {"cuda"}
        assert {p.device.type for p in networks["vocoder"].parameters()} == {"cpu"}
    with pytest.raises(UserError, match="use offload or compiled"):
        tiny_backbone(compiled=True, offload=True)


def test_outputs_are_saved_and_shown(pipe, tmp_path):
    out = pipe("<b>rain</b>", num_waveforms_per_prompt=2, seed=4, **SHORT)
    assert repr(out).startswith("Output(0.50 s at 16000 Hz, prompt '<b>rain</b>', seed ") and len(repr(out)) < 100
    assert out.save(tmp_path / "a.wav") == tmp_path / "a.wav" and out.save(str(tmp_path / "a.flac"))
    assert torch.equal(read_audio(tmp_path / "a.wav"), limit_to_full_scale(out.audio, ""))
    assert soundfile.info(tmp_path / "a.flac").frames == 8000
    with pytest.raises(UserError, match=r"\.wav or \.flac"):
        out.save(tmp_path / "a.mp3")
    shown = out._repr_html_()
    assert shown.startswith('<audio controls src="data:audio/flac;base64,') and "<b>" not in shown
    outs = pipe(["rain", "wind"], **SHORT)
    assert [path.name for path in outs.save(tmp_path / "two")] == ["1.wav", "2.wav"]
    assert outs._repr_html_().count("<audio") == 2


def header(path) -> dict:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    return huggingface_hub.metadata_load(path)


def test_a_pipeline_is_saved_and_loaded(tmp_path, monkeypatch):
    """It reads like a folder of diffusers, and brings its codebook; what is pushed is the same."""
    import huggingface_hub

    pipe = DDCMPipeline.from_pretrained()
    pipe.save_pretrained(tmp_path / "mine")
    again = DDCMPipeline.from_pretrained(tmp_path / "mine")
    assert again.backbone.digest == pipe.backbone.digest and again.backbone.name == str(tmp_path / "mine")
    assert torch.equal(again.codebook.quantizer.codebook, pipe.codebook.quantizer.codebook)
    index = json.loads((tmp_path / "mine" / "model_index.json").read_text())
    assert index == json.loads((ROOT / "checkpoints/pocket/model_index.json").read_text())
    assert DDCMPipeline.from_pretrained(tmp_path / "mine", codebook=None).codebook is None
    facts = header(tmp_path / "mine" / "README.md")
    assert facts["license"] == "cc-by-sa-3.0" and facts["library_name"] == "ddcm" and "audioldm2" in facts["tags"]

    class Api:
        def __init__(self, token):
            pass

        def create_repo(self, repo_id, **options):
            pass

        def upload_folder(self, repo_id, folder_path):
            shutil.copytree(folder_path, tmp_path / "uploaded")
            return f"commit of {repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert pipe.push_to_hub("me/mine", private=True) == "commit of me/mine"
    files = [
        sorted(p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*")) for name in ("mine", "uploaded")
    ]
    assert files[0] == files[1]


def test_what_cannot_be_saved(pipe, tmp_path):
    with pytest.raises(UserError, match="has no files to save"):
        pipe.save_pretrained(tmp_path / "a")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years")
    with pytest.raises(UserError, match="is not a pipeline"):
        pipe.save_pretrained(tmp_path / "thesis")
    assert not (tmp_path / "a").exists() and (tmp_path / "thesis" / "chapter.tex").exists()


@pytest.mark.parametrize(
    "name, licence, base",
    [("cvssp/audioldm2-music", "cc-by-nc-sa-4.0", "cvssp/audioldm2-music"), ("pocket", "cc-by-sa-3.0", None),
     ("me/other", "unknown", "me/other"), ("/data/x: [evil]\n---", "unknown", None)],
)  # fmt: skip
def test_the_card_of_a_codebook(tmp_path, name, licence, base):
    save_codebook(tmp_path / "c", HardQuantizer(8), name, "0123", {}, {"kbps": 3.5})
    facts = header(tmp_path / "c" / "README.md")
    assert (facts["license"], facts.get("base_model")) == (licence, base) and "vector-quantization" in facts["tags"]
