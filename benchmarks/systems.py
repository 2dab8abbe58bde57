"""The stock components and ours with the same work, for ``benchmarks.stock``."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ddcm.audio.layout import FRAMES, OVERLAP
from ddcm.audio.level import normalise_level
from ddcm.audio.mel import log_mel
from ddcm.backbone.parts import text_widths
from ddcm.pipeline import DDCMPipeline

TASKS = ("generate", "transform", "reconstruct", "compress", "decompress")
PROMPTS = ("a bass drum and a snare in a small room", "rain on a tin roof, far away a dog")
GUIDANCE = 3.5


@dataclass(frozen=True)
class Case:
    folder: str
    task: str
    batch: int
    seconds: float
    steps: int
    device: str
    dtype: str
    vae_dtype: str = "float32"
    compiled: bool = False
    channels_last: bool = False
    """of the stock pipeline; ours chooses by itself"""
    stream: str = ""
    """path of the file that ``compress`` writes and ``decompress`` reads"""


@dataclass
class Loaded:
    work: Callable[[str], object]
    """prompt -> does the task once"""
    load_s: float = 0.0
    late_load_s: list[float] = field(default_factory=list)
    """seconds spent in loading while ``work`` ran"""


def clock(device: str) -> Callable[[], float]:
    """A clock in seconds: processor time on a CPU, so that other work does not count; otherwise wall time."""
    return time.process_time if device == "cpu" else time.perf_counter


def recording(seconds: float) -> torch.Tensor:
    """(S,): noise with a changing level; times do not depend on the audio."""
    size = round(16000 * seconds)
    swell = torch.linspace(0, 31.4 * seconds, size).sin()
    return torch.randn(size, generator=torch.Generator().manual_seed(0)) * 0.1 * swell


def compute_mel(audio: torch.Tensor) -> torch.Tensor:
    audio = normalise_level(audio)[0]
    return log_mel(torch.nn.functional.pad(audio, (0, -len(audio) % 640))[None])


def stock(case: Case) -> Loaded:
    """The pipeline of diffusers for ``generate``. It lacks the other tasks: they run its components and scheduler in a
    plain loop with as many UNet calls as ours, and load only the components that they need."""
    dtype = getattr(torch, case.dtype)
    now = clock(case.device)
    begin = now()
    if case.task == "generate":
        pipe = stock_pipeline(case.folder, dtype).to(case.device)
        for module in (pipe.unet, pipe.vae) if case.channels_last else ():
            module.to(memory_format=torch.channels_last)
        if case.compiled:
            pipe.unet.compile(dynamic=False)
        loaded = Loaded(stock_generate(case, pipe))
    else:
        loaded = Loaded(stock_loop(case, *_load_stock_parts(case, dtype)))
    loaded.load_s = now() - begin
    return loaded


def stock_pipeline(folder: str, dtype: torch.dtype):
    from diffusers import AudioLDM2Pipeline
    from transformers import GPT2LMHeadModel

    language_model = GPT2LMHeadModel.from_pretrained(Path(folder) / "language_model", dtype=dtype)
    return AudioLDM2Pipeline.from_pretrained(folder, torch_dtype=dtype, language_model=language_model)


def stock_generate(case: Case, pipe: Any) -> Callable[[str], object]:
    pipe.set_progress_bar_config(disable=True)
    return lambda prompt: pipe(
        prompt, num_inference_steps=case.steps, guidance_scale=GUIDANCE, audio_length_in_s=case.seconds,
        num_waveforms_per_prompt=case.batch, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip


def _load_stock_parts(case: Case, dtype: torch.dtype) -> tuple[dict[str, Any], Any]:
    """The modules that a task needs, and the scheduler."""
    from diffusers import AudioLDM2UNet2DConditionModel, AutoencoderKL, DDIMScheduler
    from transformers import SpeechT5HifiGan

    folder = case.folder
    parts: dict = {"vae": AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=dtype)}
    if case.task != "compress":
        parts["vocoder"] = SpeechT5HifiGan.from_pretrained(folder, subfolder="vocoder", dtype=dtype)
    if case.task != "reconstruct":
        parts["unet"] = AudioLDM2UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype)
    parts = {name: module.to(case.device).eval() for name, module in parts.items()}
    return parts, DDIMScheduler.from_pretrained(folder, subfolder="scheduler")


def stock_loop(case: Case, parts: dict[str, Any], scheduler: Any) -> Callable[[str], object]:
    """A task that the stock pipeline lacks, on ``case.batch`` windows, in the dtype of the parts."""
    dtype = parts["vae"].dtype
    mels = compute_mel(recording(case.seconds)).repeat(case.batch, 1, 1, 1).to(case.device, dtype)

    @torch.no_grad()
    def work(prompt: str) -> object:
        vae, scale = parts["vae"], parts["vae"].config.scaling_factor
        z = torch.zeros(len(mels), 8, mels.shape[2] // 4, 16, device=case.device, dtype=dtype)
        if case.task != "decompress":
            z = vae.encode(mels).latent_dist.mode() * scale
        if case.task != "reconstruct":
            generated, text = text_widths(parts["unet"].config)
            null = dict(
                encoder_hidden_states=z.new_zeros(len(z), 8, generated),
                encoder_hidden_states_1=z.new_zeros(len(z), 1, text),
                encoder_attention_mask_1=torch.ones(len(z), 1, dtype=torch.long, device=case.device),
            )
            scheduler.set_timesteps(case.steps, device=case.device)
            x = torch.randn_like(z) if case.task != "transform" else z
            for t in scheduler.timesteps:
                x = scheduler.step(parts["unet"](x, t, **null).sample, t, x).prev_sample
            z = x
        return None if case.task == "compress" else parts["vocoder"](vae.decode(z / scale).sample[:, 0]).float().cpu()

    return work


def ours(case: Case) -> Loaded:
    now = clock(case.device)
    begin = now()
    pipe = DDCMPipeline.from_pretrained(
        case.folder, device=case.device, dtype=case.dtype, vae_dtype=case.vae_dtype, compiled=case.compiled
    )
    needed = {"reconstruct": ("vae", "vocoder"), "compress": ("vae", "unet")}.get(case.task, ("vae", "unet", "vocoder"))
    loaded = Loaded(_our_work(case, pipe, recording(case.seconds), case.batch))
    if case.task != "generate":
        for part in needed:
            getattr(pipe.backbone, part)
        if "unet" in needed:
            pipe.backbone.null_condition()
    else:
        pipe.backbone.null_condition()
        _count_late_loading(pipe, loaded, now)
    loaded.load_s = now() - begin
    return loaded


def our_windows(case: Case, pipe: DDCMPipeline) -> Callable[[str], object]:
    """The work on one recording of ``case.batch`` windows, all of which share a batch; several have 10.24 s each."""
    pipe.batch_size = case.batch
    seconds = case.seconds if case.batch == 1 else (FRAMES + (case.batch - 1) * (FRAMES - OVERLAP)) / 100
    return _our_work(case, pipe, recording(seconds), times=1)


def _our_work(case: Case, pipe: DDCMPipeline, audio: torch.Tensor, times: int) -> Callable[[str], object]:
    plain = dict(quantizer="none", vocoder="backbone")
    settings = dict(steps=case.steps, solver="ddim", **plain)

    def work(prompt: str) -> object:
        if case.task == "generate":
            return pipe.generate(
                prompt, case.seconds, recipe="final", guidance_scale=GUIDANCE, n=case.batch, **settings
            )
        for _ in range(times):
            if case.task == "transform":
                pipe.transform(audio, 16000, strength=1.0, **settings)
            elif case.task == "reconstruct":
                pipe.reconstruct(audio, 16000, **plain)
            elif case.task == "compress":
                Path(case.stream).write_bytes(pipe.compress(audio, 16000, steps=case.steps))
            else:
                pipe.decompress(Path(case.stream).read_bytes(), vocoder="backbone")
        return None

    return work


def _count_late_loading(pipe: DDCMPipeline, loaded: Loaded, now: Callable[[], float]) -> None:
    """Record the seconds of loading during ``work``: ours loads weights at their first use, and the text encoders for
    each new prompt."""
    import transformers

    def timed(function):
        def call(*arguments, **options):
            begin = now()
            result = function(*arguments, **options)
            loaded.late_load_s.append(now() - begin)
            return result

        return call

    for encoder in (transformers.ClapTextModelWithProjection, transformers.T5EncoderModel, transformers.GPT2Model):
        encoder.from_pretrained = timed(encoder.from_pretrained)
    pipe.backbone._load = timed(pipe.backbone._load)
