"""The verbs on tensors: audio in, audio out, nothing about files."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ddcm.audio import windows
from ddcm.audio.files import Level, normalise_level, to_mono
from ddcm.audio.frontends import extract
from ddcm.audio.postprocess import HIGH_HZ, energy_above, lift_high, postprocess
from ddcm.audio.recording import SpooledAudio
from ddcm.backbone import Backbone, load
from ddcm.backbone.vocoding import vocode
from ddcm.errors import UserError
from ddcm.pipeline.denoise import (
    Conditioning,
    OnStep,
    Trace,
    code_notes,
    diffuse,
    quantise,
    timeline_noise,
    window_shape,
)
from ddcm.pipeline.limiter import limit_std
from ddcm.pipeline.output import Output
from ddcm.quantize.pretrained import Codebook, load_codebook
from ddcm.recipes import Recipe, resolve

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_S = 3600  # of generated audio
POSTERIOR_STREAM = 1 << 40  # added to the seed, so that a sampled latent and the noise on it are not the same numbers


@dataclass
class _Input:
    """A recording as the backbone takes it."""

    mel: torch.Tensor  # (1, 1, T, M), T a multiple of 4
    samples: int
    level: Level
    audio: torch.Tensor | None = None  # (160 T,) levelled, at the mel's rate; None where there is no recording
    features: str = "matched"  # the front end that made the mel
    noticed: dict[str, Any] = field(default_factory=dict)  # while it was encoded
    on_batch: Callable[[], None] = lambda: None  # called when a batch of windows went through the VAE


class DDCMPipeline:
    """A frozen backbone and, where a recipe asks for one, a fitted codebook.

    Work is done window by window, ``batch_size`` windows of 10.24 s at a time; one recording is one call, so
    its result does not depend on what else is worked on.
    """

    def __init__(self, backbone: Backbone, codebook: Codebook | None = None, batch_size: int = 4):
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size} is less than 1")
        if codebook is not None:
            codebook.check(backbone)
            codebook.quantizer.to(backbone.device)
        self.backbone, self.codebook, self.batch_size = backbone, codebook, batch_size
        self.one_by_one = backbone.device.type == "cpu"
        """Whether candidates are made one after the other."""

    @classmethod
    def from_pretrained(
        cls, backbone: str | Path = "checkpoints/pocket", codebook: str | Path | None = None,
        batch_size: int = 4, **options,
    ) -> DDCMPipeline:  # fmt: skip
        """By names: a backbone (hub name or folder), a codebook (hub name, exported folder or ``.ckpt``).

        ``options`` are those of ``ddcm.backbone.load``: device, dtype, heads, null, vae_dtype.
        """
        return cls(load(backbone, **options), None if codebook is None else load_codebook(codebook), batch_size)

    def reconstruct(
        self, audio, sample_rate: int, recipe: str | None = None, seed: int = 0, on_step: OnStep | None = None,
        **settings,
    ) -> Output:  # fmt: skip
        """Audio (S,) or (channels, S) -> the same through mel, VAE (and codebook) and vocoder.

        ``seed`` is of the latent's sample, where the recipe draws one. ``on_step`` counts batches of windows, once
        encoded and once decoded. ``settings`` override the recipe's: see
        ``ddcm.recipes.Recipe``.

        Raises:
            UserError: unknown recipe or setting out of range, audio that is empty or not finite, no codebook.
        """
        chosen = resolve("reconstruct", recipe, **settings)
        given = self._prepare(audio, sample_rate, chosen)
        if on_step is not None:
            batches = -(-len(windows.window_starts(given.mel.shape[2])) // self.batch_size)
            done = itertools.count(1)
            given.on_batch = lambda: on_step(next(done), 2 * batches)
        return self._finish(given, self._encode(given, chosen, seed), chosen)

    def transform(
        self, audio, sample_rate: int, prompt: str = "", negative_prompt: str = "", recipe: str | None = None,
        seed: int = 0, on_step: OnStep | None = None, trace: bool = False, **settings,
    ) -> Output:  # fmt: skip
        """Audio (S,) or (channels, S) -> audio that follows it, and the prompt where one is given.

        The input's latent is quantised, noised to ``strength`` and denoised again. The same seed gives the same
        samples. ``settings`` as for ``reconstruct``; recipes of ``generate`` start from the noised input here.
        """
        chosen = resolve("transform", recipe, **settings)
        given = self._prepare(audio, sample_rate, chosen)
        z = self._encode(given, chosen, seed)
        return self._candidates(given, chosen, Conditioning(prompt, negative_prompt, seed), z, on_step, trace)

    def generate(
        self, prompt: str = "", duration_s: float = 10.24, negative_prompt: str = "", recipe: str | None = None,
        seed: int = 0, on_step: OnStep | None = None, trace: bool = False, **settings,
    ) -> Output:  # fmt: skip
        """A prompt -> audio of ``duration_s`` seconds from noise, with the codebook acting where the recipe says.

        With n > 1 candidates, which start from seed, seed + 1, ..., the one with the highest CLAP score is returned
        and the rest are its ``others``; every candidate equals what its own seed gives alone. Without a prompt no
        text encoder is loaded, nothing is scored, and candidates come by seed.
        """
        chosen = resolve("generate", recipe, **settings)
        if not 0 < duration_s <= LONGEST_S:
            raise UserError(f"duration_s {duration_s} is outside (0, {LONGEST_S}]; AudioLDM2 was trained on 10.24")
        spec = self.backbone.mel_spec
        samples = max(1, round(duration_s * spec.sample_rate))
        frames = -(-samples // (4 * spec.hop)) * 4
        given = _Input(torch.empty(1, 1, frames, 0), samples, Level(0.0, 1.0), features="none")
        return self._candidates(given, chosen, Conditioning(prompt, negative_prompt, seed), None, on_step, trace)

    def compress(self, audio, sample_rate: int, on_step: OnStep | None = None, **settings) -> bytes:
        """Audio (S,) or (channels, S) -> the bytes of a ``.ddcm`` file, at ``kbps=1.0`` if nothing else is said.

        A ``ddcm.audio.recording.Recording`` at the backbone's rate is read window by window. ``settings`` are those of
        ``ddcm.codec.settings.CodecSettings``.
        """
        from ddcm.codec.encode import encode
        from ddcm.codec.settings import CodecSettings

        chosen = CodecSettings(**settings)
        lanes = 1 if self.backbone.device.type == "cpu" else self.batch_size
        given = (
            audio
            if isinstance(audio, SpooledAudio)
            else to_mono(audio, sample_rate, self.backbone.mel_spec.sample_rate)
        )
        return encode(given, self.backbone, chosen, self.codebook, lanes, on_step)

    def decompress(self, data: bytes, vocoder: str = "refined", on_step: OnStep | None = None) -> Output:
        """The bytes of a ``.ddcm`` file -> the audio that was compressed, as long and at its level.

        Raises:
            UserError: damaged, or of another version, backbone or codebook.
        """
        from ddcm.codec.files import decoded

        return Output(**decoded(data, self.backbone, self.codebook, vocoder, on_step))

    def generate_compressed(
        self, prompt: str, duration_s: float = 5.0, seed: int = 0, on_call: Callable[[], None] | None = None,
        vocoder: str = "refined", **settings,
    ) -> tuple[bytes, Output]:  # fmt: skip
        """A prompt -> audio and the ``.ddcm`` file that decodes to it, without the prompt: see
        ``ddcm.codec.generate``."""
        from ddcm.codec.generate import generate
        from ddcm.codec.settings import CodecSettings

        data = generate(self.backbone, prompt, duration_s, CodecSettings(**settings), seed, on_call=on_call)
        return data, self.decompress(data, vocoder)

    def _prepare(self, audio, sample_rate: int, recipe: Recipe) -> _Input:
        """As the backbone takes it, by the front end of the recipe."""
        spec = self.backbone.mel_spec
        audio = to_mono(audio, sample_rate, spec.sample_rate)
        levelled, moved = normalise_level(audio)
        # Silence is added to the waveform: a zero in the log-mel would be louder than most music.
        whole_cells = torch.nn.functional.pad(levelled, (0, -len(audio) % (4 * spec.hop)))
        extractor = self.backbone.extractor() if recipe.features == "clap" else None
        mel, used = extract(recipe.features, whole_cells, spec, extractor, recipe.raw_features)
        return _Input(mel, len(audio), moved, whole_cells, used)

    def quantizer_for(self, recipe: Recipe):
        if recipe.quantizer == "none":
            return None
        if self.codebook is None:
            raise UserError("this recipe quantises: name a codebook with --codebook, or use --quantizer none")
        quantizer = self.codebook.quantizer
        if recipe.quantizer == "soft" and not hasattr(quantizer, "codebook"):
            raise UserError(f"a {type(quantizer).__name__} has no single codebook to mix; use --quantizer hard")
        return quantizer

    def _encode(self, given: _Input, recipe: Recipe, seed: int = 0) -> torch.Tensor:
        """The latent of each window (W, C, L, F), quantised where the recipe says so; on the backbone's device."""
        quantizer = self.quantizer_for(recipe)
        total = given.mel.shape[2]
        size = min(total, windows.FRAMES)
        cut = torch.cat([given.mel[:, :, start : start + size] for start in windows.window_starts(total)])
        batches = windows.counted(cut.split(self.batch_size), given.on_batch)
        latents = [self._sampled(batch, recipe) for batch in batches]
        z = torch.cat([z for z, _ in latents])
        if recipe.mode_share < 1:
            noise = timeline_noise(seed + POSTERIOR_STREAM, total, z.shape[1:], z.device)
            stds = torch.cat([std for _, std in latents if std is not None])
            z = z + (1 - recipe.mode_share) * stds * noise
        if recipe.limiter != "none":
            z = limit_std(z / self.backbone.scaling_factor, recipe.limiter) * self.backbone.scaling_factor
        if quantizer is not None and recipe.acts_on == "input":
            z = torch.cat([quantise(batch, recipe, quantizer) for batch in z.split(self.batch_size)])
            given.noticed = code_notes(z, quantizer)
        return z

    def _sampled(self, mel: torch.Tensor, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor | None]:
        """z of the posterior's mode and its scaled standard deviation, where that is needed."""
        if recipe.mode_share == 1:
            return self.backbone.encode(mel), None
        mean, std = self.backbone.posterior(mel)
        return mean * self.backbone.scaling_factor, std * self.backbone.scaling_factor

    def _candidates(self, given, recipe: Recipe, words: Conditioning, z, on_step, trace: bool) -> Output:
        """n results, one for each seed from ``words.seed`` on, ranked by CLAP where there is a prompt."""
        quantizer, found = self.quantizer_for(recipe), []
        each = [Conditioning(words.prompt, words.negative_prompt, words.seed + number) for number in range(recipe.n)]
        kept = Trace() if trace else None
        for one, result, steps in self._diffused(given.mel.shape[2], recipe, each, z, on_step, kept):
            said = {"prompt": one.prompt, "negative_prompt": one.negative_prompt, "seed": one.seed}
            if recipe.quantizer == "hard" and recipe.acts_on != "input":
                said |= code_notes(result, quantizer)
            out = self._finish(given, result, recipe, said | {"unet_steps": steps})
            if kept is not None:
                out.trace = [(t, self.backbone.decode(x0).cpu()) for t, x0 in kept.estimates]
                kept.estimates.clear()
            found.append(out)
        if recipe.n > 1 and words.prompt:
            scores = self.backbone.clap_scores([out.audio for out in found], words.prompt)
            for out, score in zip(found, scores, strict=True):
                out.notes["clap_score"] = score
            found.sort(key=lambda out: -out.notes["clap_score"])  # stable: equal scores stay by seed
        best = found[0]
        best.others = found[1:]
        return best

    def _diffused(self, frames: int, recipe: Recipe, each: list[Conditioning], z, on_step, trace):
        """(words, latents of all windows, steps) of each of several seeds.

        On a GPU their windows go through the UNet together, ``batch_size`` at a time; on a CPU, which gains nothing by
        it, one seed after the other, so that a candidate is to the bit what its seed gives alone.
        """
        quantizer, count = self.quantizer_for(recipe), len(each)
        if self.one_by_one or trace is not None:
            for number, one in enumerate(each):
                step = None
                if on_step is not None:
                    step = lambda done, of, number=number: on_step(number * of + done, count * of)  # noqa: E731
                yield one, *diffuse(self.backbone, quantizer, recipe, one, frames, self.batch_size, z, step, trace)
            return
        shape = window_shape(self.backbone, frames)
        noise = torch.cat([timeline_noise(one.seed, frames, shape, self.backbone.device) for one in each])
        start = None if z is None else z.repeat(count, 1, 1, 1)
        result, steps = diffuse(
            self.backbone, quantizer, recipe, each[0], frames, self.batch_size, start, on_step, noise=noise
        )
        for one, mine in zip(each, result.chunk(count), strict=True):
            yield one, mine, steps

    def _finish(self, given: _Input, z: torch.Tensor, recipe: Recipe, said: dict | None = None) -> Output:
        batches = windows.counted(z.split(self.batch_size), given.on_batch)
        mels = torch.cat([self.backbone.decode(batch).cpu() for batch in batches])
        total, rate = given.mel.shape[2], self.backbone.mel_spec.sample_rate
        mel = windows.cross_fade(mels, windows.window_starts(total), total)
        notes: dict[str, Any] = {"recipe": recipe}
        notes |= {"backbone": self.backbone.name, "latent_digest": self.backbone.latent_digest}
        notes |= {"features": given.features} | given.noticed
        audio, notes["vocoder"], failed = vocode(mel, recipe.vocoder, self.backbone)
        if failed:
            notes["vocoder_failed"] = failed
        if recipe.high_lift and given.audio is not None:
            heard, wanted = (energy_above(x, rate, HIGH_HZ) for x in (audio, given.audio))
            mel, notes["high_lift"] = lift_high(mel, (heard / wanted) ** 0.5 if wanted > 0 else 1.0)
            if notes["high_lift"] > 1:
                audio, _, _ = vocode(mel, notes["vocoder"], self.backbone)
        # Without a recording there is nothing to match: the audio is its own reference.
        audio = audio[: given.samples]
        reference = audio if given.audio is None else given.audio[: given.samples]
        audio, reference = given.level.undo(audio), given.level.undo(reference)
        audio = postprocess(audio, reference, rate, recipe.after)
        return Output(audio, rate, mel, z.cpu(), notes | (said or {}))
