"""The verbs on tensors: audio in, audio out, nothing about files."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from ddcm.audio.files import to_mono
from ddcm.audio.recording import SpooledAudio
from ddcm.backbone import Backbone, load
from ddcm.codec.codec_settings import CodecSettings
from ddcm.codec.compress import compress
from ddcm.codec.decompress import decompress
from ddcm.codec.generate import generate
from ddcm.errors import UserError
from ddcm.pipeline.denoise import count_denoise_steps, denoise
from ddcm.pipeline.encode import count_encode_steps, encode, prepare, prepare_empty
from ddcm.pipeline.output import Info, Output
from ddcm.pipeline.quantise import choose_quantizer
from ddcm.pipeline.render import count_render_steps, rank, render
from ddcm.pipeline.stages import Conditioning, Latents, Prepared, Setup
from ddcm.quantize.pretrained import Codebook, load_codebook
from ddcm.recipes import Recipe, Verb, resolve
from ddcm.runtime.files import resolve_model
from ddcm.runtime.progress import OnStep, Progress

LONGEST_S = 3600  # of generated audio


class DDCMPipeline:
    """A frozen backbone and, where a recipe asks for one, a fitted codebook.

    A recording is one call: its result does not depend on what else is processed. Recordings are cut into windows of
    10.24 s, of which ``batch_size`` go through a network together. Audio is an array, tensor or list of (S,),
    (channels, S) or (S, channels), the longer axis being time, at ``sample_rate`` Hz: floats with a full scale of 1, or
    integers, which are scaled by their type (``ddcm.audio.files.to_mono``). Every ``recipe`` is a name, a
    ``ddcm.recipes.Recipe``, or None for the verb's default; ``settings`` override its fields. Raises UserError: the
    codebook was fitted on other latents, or ``batch_size`` is less than 1.
    """

    def __init__(self, backbone: Backbone, codebook: Codebook | None = None, batch_size: int = 4):
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size} is less than 1")
        if codebook is not None:
            codebook.check(backbone)
            codebook.quantizer.to(backbone.device)
        self.backbone, self.codebook, self.batch_size = backbone, codebook, batch_size
        self.one_by_one = backbone.device.type == "cpu"
        """Whether candidates are made one after the other. On a GPU their windows share batches; a CPU gains nothing by
        that, and alone a candidate has the same bits as its seed gives."""

    @classmethod
    def from_pretrained(
        cls, backbone: str | Path = "pocket", codebook: str | Path | None = "own", batch_size: int = 4, **options
    ) -> Self:
        """By names: a backbone (``pocket``, hub name or folder), a codebook (hub name, exported folder or ``.ckpt``;
        ``own``: the one that comes with the backbone, if there is one; None: none).

        ``options`` are those of ``ddcm.backbone.load``: device, dtype, heads, null, vae_dtype.
        """
        if codebook == "own":
            codebook = "pocket-1024" if resolve_model(backbone).resolve() == resolve_model("pocket").resolve() else None
        return cls(load(backbone, **options), None if codebook is None else load_codebook(codebook), batch_size)

    def reconstruct(
        self, audio, sample_rate: int, recipe: str | Recipe | None = None, seed: int = 0,
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

    def transform(
        self, audio, sample_rate: int, prompt: str = "", negative_prompt: str = "", recipe: str | Recipe | None = None,
        seed: int = 0, on_step: OnStep | None = None, trace: bool = False, **settings,
    ) -> Output:  # fmt: skip
        """Audio -> audio that follows it, and the prompt where one is given.

        The input's latent is quantised, noised to ``strength`` and denoised again. The same seed gives the same
        samples. Recipes of ``generate`` start from the noised input here. Errors are those of ``reconstruct``.
        """
        setup = self.set_up("transform", recipe, **settings)
        prepared = prepare(setup, audio, sample_rate)
        return self._diffuse(setup, prepared, Conditioning(prompt, negative_prompt), seed, on_step, trace)

    def generate(
        self, prompt: str = "", duration_s: float = 10.24, negative_prompt: str = "",
        recipe: str | Recipe | None = None, seed: int = 0, on_step: OnStep | None = None, trace: bool = False,
        **settings,
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
        return self._diffuse(setup, latents, Conditioning(prompt, negative_prompt), seed, on_step, trace)

    def compress(
        self, audio, sample_rate: int, on_step: OnStep | None = None, settings: CodecSettings | None = None,
        **overrides,
    ) -> bytes:  # fmt: skip
        """Audio -> the bytes of a ``.ddcm`` file, at ``kbps=1.0`` by default.

        A ``ddcm.audio.recording.SpooledAudio`` at the backbone's rate is read window by window. ``overrides`` are
        fields of ``ddcm.codec.codec_settings.CodecSettings``.
        """
        chosen = replace(settings or CodecSettings(), **overrides)
        if not isinstance(audio, SpooledAudio):
            audio = to_mono(audio, sample_rate, self.backbone.mel_spec.sample_rate)
        return compress(audio, self.backbone, chosen, self.codebook, self.codec_batch_size, on_step)

    @property
    def codec_batch_size(self) -> int:
        """Windows that the codec computes together; on a CPU that saves no time."""
        return 1 if self.backbone.device.type == "cpu" else self.batch_size

    def decompress(self, data: bytes, vocoder: str = "refined", on_step: OnStep | None = None) -> Output:
        """The bytes of a ``.ddcm`` file -> the audio that was compressed, as long and at its level. Raises UserError:
        damaged, or of another version, backbone or codebook."""
        decoded = decompress(data, self.backbone, self.codebook, vocoder, self.codec_batch_size, on_step)
        header, rate = decoded.header, self.backbone.mel_spec.sample_rate
        info = Info(self.backbone.name, prompt=header.prompt, mode=header.mode, kbps=len(data) / 125 / header.seconds)
        return Output(decoded.audio, rate, decoded.mel, decoded.latent, info)

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
        trace: bool,
    ) -> Output:  # fmt: skip
        seeds = range(seed, seed + setup.recipe.n)
        together = not (self.one_by_one or trace)
        frames, encodes = start.reference.frames, isinstance(start, Prepared)
        total = count_denoise_steps(setup, frames, seeds, together, from_noise=not encodes)
        total += len(seeds) * count_render_steps(setup, frames) + encodes * count_encode_steps(setup, frames)
        progress = Progress(on_step, total)
        latents = encode(setup, start, seed, progress) if isinstance(start, Prepared) else start
        results = denoise(setup, latents, conditioning, seeds, together, progress, trace)
        return rank([render(setup, result, progress) for result in results], self.backbone, conditioning.prompt)
