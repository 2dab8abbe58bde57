"""The verbs on tensors: audio in, audio out, nothing about files."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch

from ddcm.audio.recording import SpooledAudio
from ddcm.backbone import Backbone, load
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.codes import vq
from ddcm.codec.compress import compress
from ddcm.codec.decompress import decompress
from ddcm.codec.format import unpack
from ddcm.codec.generate import generate
from ddcm.codec.header import shorten
from ddcm.errors import UserError
from ddcm.pipeline.call import accept, call, read_input, translate
from ddcm.pipeline.denoise import count_denoise_steps, denoise
from ddcm.pipeline.encode import count_encode_steps, encode, prepare, prepare_empty
from ddcm.pipeline.output import Info, Output
from ddcm.pipeline.quantise import choose_quantizer
from ddcm.pipeline.render import count_render_steps, rank, render
from ddcm.pipeline.saved_pipeline import find_codebook, is_pocket, save_pipeline, write_pipeline
from ddcm.pipeline.stages import Conditioning, Latents, Prepared, Setup
from ddcm.quantize.pretrained import Codebook, load_codebook, push_folder
from ddcm.recipes import SETTINGS, Recipe, Verb, resolve
from ddcm.runtime.progress import OnStep, Progress

LONGEST_S = 3600  # of generated audio
Callback = Callable[[Any, int, int, dict[str, torch.Tensor]], dict[str, Any] | None]


class DDCMPipeline:
    """A frozen backbone and, where a recipe asks for one, a fitted codebook.

    A recording is one call: its result does not depend on what else is processed. Recordings are cut into windows of
    10.24 s, of which ``batch_size`` go through a network together. Audio is a path, an ``Output``, (array, rate), or an
    array, tensor or list of (S,), (channels, S) or (S, channels), the longer axis being time, at ``sample_rate`` Hz:
    floats with a full scale of 1, or integers, which are scaled by their type (``ddcm.audio.files.to_mono``). Every
    ``recipe`` is a name, a ``ddcm.recipes.Recipe``, or None for the verb's default; ``settings`` override its fields.
    Keywords may have the names of diffusers (``ddcm.pipeline.call``). Raises UserError: the codebook was fitted on
    other latents, ``batch_size`` is less than 1, or an unknown keyword.
    """

    def __init__(self, backbone: Backbone, codebook: Codebook | None = None, batch_size: int = 4):
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size} is less than 1")
        if codebook is not None:
            codebook.check(backbone)
        self.codebook, self.batch_size, self.has_residual = codebook, batch_size, False
        self._use(backbone)

    def _use(self, backbone: Backbone) -> Self:
        self.backbone = backbone
        self.one_by_one = backbone.device.type == "cpu"
        """Whether candidates are made one after the other. On a GPU their windows share batches; a CPU gains nothing by
        that, and alone a candidate has the same bits as its seed gives."""
        for codebook in (self.codebook, self.__dict__.get("residual_codebook")):  # the second once it is loaded
            if codebook is not None:
                codebook.quantizer.to(backbone.device)
        return self

    @classmethod
    def from_pretrained(
        cls, backbone: str | Path = "pocket", codebook: str | Path | None = "own", batch_size: int = 4, **options
    ) -> Self:
        """By names: a backbone (``pocket``, hub name or folder), a codebook (hub name, exported folder or ``.ckpt``;
        ``own``: the one that comes with the backbone, if there is one; None: none).

        ``options`` are those of ``ddcm.backbone.load``: device, dtype (a name, or ``torch.float16``), heads, null,
        vae_dtype, compiled.
        """
        if ":" not in str(backbone):  # a class of one's own has options of its own
            options = translate(options, ("device", "dtype", "heads", "null", "vae_dtype", "compiled"))
        loaded = load(backbone, **options)
        source = find_codebook(backbone) if codebook == "own" else codebook
        pipe = cls(loaded, None if source is None else load_codebook(source), batch_size)
        pipe.has_residual = codebook == "own" and is_pocket(backbone)
        return pipe

    @functools.cached_property
    def residual_codebook(self) -> Codebook | None:
        """The codebook of mode hybrid: the embedded backbone's residual one, unless another was asked for."""
        if not self.has_residual:
            return self.codebook
        codebook = load_codebook("pocket-residual")
        codebook.check(self.backbone)
        codebook.quantizer.to(self.device)
        return codebook

    def find_codebook(self, data: bytes) -> Codebook | None:
        """The codebook that a ``.ddcm`` file was made with, as far as the pipeline has it."""
        digest = unpack(data)[0].codebook
        mine = self.residual_codebook if digest else None
        return mine if mine is not None and shorten(vq.digest(mine.quantizer)) == digest else self.codebook

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that ``from_pretrained`` reads: the backbone's files, as diffusers reads them, its codebook in
        ``codebook``, and a model card. Options such as ``heads`` are given again. Raises UserError: the folder is
        another's, or the backbone has no files."""
        save_pipeline(self, Path(folder))

    def push_to_hub(self, repo_id: str, **options) -> str:
        """Upload what ``save_pretrained`` writes as the model ``repo_id``; ``options`` go to ``HfApi.create_repo``."""
        return push_folder(repo_id, lambda folder: write_pipeline(self, folder), **options)

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the UNet."""
        return self.backbone.dtype

    def to(self, *where: Any, device: Any = None, dtype: Any = None) -> Self:
        """Move to a device, or compute the UNet in a dtype, or both; this pipeline. Networks are loaded anew."""
        for each in where:
            dtype, device = (each, device) if isinstance(each, torch.dtype) else (dtype, each)
        return self._use(self.backbone.to(device, dtype))

    def enable_model_cpu_offload(self, device: Any = None) -> None:
        """Keep one network at a time on the GPU (``device``; by default the pipeline's, or ``cuda``) and the others in
        main memory: for GPUs that cannot hold all. It takes the time of the copies."""
        own = "cuda" if self.device.type == "cpu" else self.device
        self._use(self.backbone.to(own if device is None else device, offload=True))

    def __call__(self, prompt: Any = None, audio: Any = None, **options) -> Any:
        """A prompt -> audio (``generate``); audio, with a prompt or without -> audio that follows it (``transform``, or
        ``reconstruct`` with a recipe of it). Keywords are those of the verb, and ``output_type`` (np, pt, latent) and
        ``return_dict`` as in diffusers. Prompts, clips, seeds and generators may be lists of one length: then the
        result is ``Outputs``, with an ``Output`` for each, which equals that of a call of its own."""
        return call(self, prompt, audio, options)

    @accept(SETTINGS)
    def reconstruct(
        self, audio, sample_rate: int | None = None, recipe: str | Recipe | None = None, seed: int = 0,
        on_step: OnStep | None = None, **settings,
    ) -> Output:  # fmt: skip
        """Audio -> the same through mel, VAE (and codebook) and vocoder.

        ``seed`` is of the posterior's sample, where the recipe draws one. ``on_step`` counts batches of windows, each
        of which is encoded and decoded, and pieces of audio. Raises UserError: unknown recipe or setting out of range,
        audio that is empty or not finite, no codebook.
        """
        setup = self.set_up("reconstruct", recipe, **settings)
        prepared = prepare(setup, audio, sample_rate)
        frames = prepared.reference.frames
        progress = Progress(on_step, count_encode_steps(setup, frames) + count_render_steps(setup, frames))
        return render(setup, encode(setup, prepared, seed, progress), progress)

    @accept(SETTINGS)
    def transform(
        self, audio, sample_rate: int | None = None, prompt: str = "", negative_prompt: str = "",
        recipe: str | Recipe | None = None, seed: int = 0, on_step: OnStep | None = None, trace: bool = False,
        callback_on_step_end: Callback | None = None, **settings,
    ) -> Output:  # fmt: skip
        """Audio -> audio that follows it, and the prompt where one is given.

        The input's latent is quantised, noised to ``strength`` and denoised again. The same seed gives the same
        samples. Recipes of ``generate`` start from the noised input here. ``callback_on_step_end(pipe, step, timestep,
        {"latents": x0})`` gets each step's estimate of the clean latents (W, C, L, F), which it cannot change. Errors
        are those of ``reconstruct``.
        """
        setup = self.set_up("transform", recipe, **settings)
        prepared, conditioning = prepare(setup, audio, sample_rate), Conditioning(prompt, negative_prompt)
        return self._diffuse(setup, prepared, conditioning, seed, on_step, trace, callback_on_step_end)

    @accept(SETTINGS)
    def generate(
        self, prompt: str = "", duration_s: float = 10.24, negative_prompt: str = "",
        recipe: str | Recipe | None = None, seed: int = 0, on_step: OnStep | None = None, trace: bool = False,
        callback_on_step_end: Callback | None = None, **settings,
    ) -> Output:  # fmt: skip
        """A prompt -> audio of ``duration_s`` seconds from noise, with the codebook acting where the recipe says.

        With n > 1 candidates, which start from seed, seed + 1, ..., the one with the highest CLAP score is returned and
        the rest are its ``others``; every candidate equals what its own seed gives alone. Without a prompt no text
        encoder is loaded, nothing is scored, and candidates come by seed. Raises UserError: unknown recipe or setting
        out of range, a length outside (0, 3600] s, no codebook.
        """
        if not 0 < duration_s <= LONGEST_S:
            raise UserError(f"duration_s {duration_s} is outside (0, {LONGEST_S}]; AudioLDM2 was trained on 10.24")
        setup = self.set_up("generate", recipe, **settings)
        latents = prepare_empty(setup, duration_s)
        return self._diffuse(
            setup, latents, Conditioning(prompt, negative_prompt), seed, on_step, trace, callback_on_step_end
        )

    @accept(CodecSettings.__dataclass_fields__)
    def compress(
        self, audio, sample_rate: int | None = None, on_step: OnStep | None = None,
        settings: CodecSettings | None = None, **overrides,
    ) -> bytes:  # fmt: skip
        """Audio -> the bytes of a ``.ddcm`` file, at ``kbps=1.0`` by default.

        A ``ddcm.audio.recording.SpooledAudio`` at the backbone's rate is read window by window. ``overrides`` are
        fields of ``ddcm.codec.codec_settings.CodecSettings``.
        """
        chosen = replace(settings or CodecSettings(), **overrides)
        if not isinstance(audio, SpooledAudio):
            audio = read_input(audio, sample_rate, self.backbone.mel_spec.sample_rate)
        codebook = self.residual_codebook if chosen.mode == "hybrid" else self.codebook
        return compress(audio, self.backbone, chosen, codebook, self.codec_batch_size, on_step)

    @property
    def codec_batch_size(self) -> int:
        """Windows that the codec computes together; on a CPU that saves no time."""
        return 1 if self.backbone.device.type == "cpu" else self.batch_size

    def decompress(self, data: bytes, vocoder: str = "refined", on_step: OnStep | None = None) -> Output:
        """The bytes of a ``.ddcm`` file -> the audio that was compressed, as long and at its level. Raises UserError:
        damaged, or of another version, backbone or codebook."""
        codebook = self.find_codebook(data)
        decoded = decompress(data, self.backbone, codebook, vocoder, self.codec_batch_size, on_step)
        header, rate = decoded.header, self.backbone.mel_spec.sample_rate
        info = Info(self.backbone.name, prompt=header.prompt, mode=header.mode, kbps=len(data) / 125 / header.seconds)
        return Output(decoded.audio, rate, decoded.mel, decoded.latent, info)

    @accept(CodecSettings.__dataclass_fields__)
    def generate_compressed(
        self, prompt: str, duration_s: float = 5.0, seed: int = 0, on_step: OnStep | None = None,
        vocoder: str = "refined", **settings,
    ) -> tuple[bytes, Output]:  # fmt: skip
        """A prompt -> audio and the ``.ddcm`` file that decodes to it, without the prompt: see
        ``ddcm.codec.generate``."""
        data = generate(self.backbone, prompt, duration_s, CodecSettings(**settings), seed, on_step=on_step)
        return data, self.decompress(data, vocoder)

    def set_up(self, verb: Verb, recipe: str | Recipe | None = None, **settings: Any) -> Setup:
        """What the stages of a call share: the recipe with its settings, and the quantizer that it needs. Raises
        UserError: unknown recipe or setting out of range, or the recipe quantises and there is no codebook."""
        chosen = resolve(verb, recipe, **settings)
        return Setup(self.backbone, choose_quantizer(chosen, self.codebook), chosen, self.batch_size)

    def _diffuse(
        self, setup: Setup, start: Prepared | Latents, conditioning: Conditioning, seed: int, on_step: OnStep | None,
        trace: bool, callback: Callback | None,
    ) -> Output:  # fmt: skip
        if not isinstance(conditioning.prompt, str) or not isinstance(conditioning.negative_prompt, str):
            raise UserError("a prompt is one text here; for several: pipe(prompt=[...])")

        def on_estimate(step: int, timestep: int, x0: torch.Tensor) -> None:
            kwargs = {"latents": x0}
            returned = None if callback is None else callback(self, step, timestep, kwargs)
            if returned and returned.get("latents", x0) is not x0:
                raise UserError("callback_on_step_end cannot change latents here; return nothing")

        seeds = range(seed, seed + setup.recipe.n)
        together = not (self.one_by_one or trace)
        frames, encodes = start.reference.frames, isinstance(start, Prepared)
        total = count_denoise_steps(setup, frames, seeds, together, from_noise=not encodes)
        total += len(seeds) * count_render_steps(setup, frames) + encodes * count_encode_steps(setup, frames)
        progress = Progress(on_step, total)
        latents = encode(setup, start, seed, progress) if isinstance(start, Prepared) else start
        results = denoise(setup, latents, conditioning, seeds, together, progress, trace, on_estimate)
        return rank([render(setup, result, progress) for result in results], self.backbone, conditioning.prompt)
