"""The verbs on tensors: audio in, audio out, nothing about files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ddcm import windows
from ddcm.audio import Level, level, resample
from ddcm.backbone import Backbone, load
from ddcm.errors import UserError
from ddcm.mel import log_mel
from ddcm.noise import latent_noise
from ddcm.quantize.checkpoint import Codebook, load_codebook
from ddcm.recipes import Recipe, resolve
from ddcm.refine import refine
from ddcm.sample import denoise_loop
from ddcm.schedule import add_noise, from_strength

if TYPE_CHECKING:
    from pathlib import Path

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all) as the work goes on."""

VOCODE_FRAMES = 1024  # mel frames that are vocoded at a time
VOCODE_CONTEXT = 32  # frames on each side that a frame's samples can depend on (21 in AudioLDM2's vocoder)


@dataclass
class Output:
    """What a verb returns. Tensors are on the CPU."""

    audio: torch.Tensor
    """(S,) float32, as long as the input, at the input's level."""
    sample_rate: int
    mel: torch.Tensor
    """(1, 1, T, M): what the vocoder was given."""
    latent: torch.Tensor
    """(W, C, L, F): the z that was decoded, a row for each window of 10.24 s."""
    notes: dict[str, Any] = field(default_factory=dict)
    """The settings that were used, and what was noticed on the way."""


@dataclass
class _Input:
    """A recording as the backbone takes it."""

    mel: torch.Tensor  # (1, 1, T, M), T a multiple of 4
    samples: int
    level: Level


class DDCMPipeline:
    """A frozen backbone and, where a recipe asks for one, a fitted codebook.

    Work is done window by window, ``batch_size`` windows of 10.24 s at a time; one recording is one call, so
    its result does not depend on what else is worked on.
    """

    def __init__(self, backbone: Backbone, codebook: Codebook | None = None, batch_size: int = 4):
        if codebook is not None:
            codebook.check(backbone)
            codebook.quantizer.to(backbone.device)
        self.backbone, self.codebook, self.batch_size = backbone, codebook, batch_size

    @classmethod
    def from_pretrained(
        cls, backbone: str | Path = "checkpoints/pocket", codebook: str | Path | None = None,
        batch_size: int = 4, **options,
    ) -> DDCMPipeline:  # fmt: skip
        """By names: a backbone (hub name or folder), a codebook (hub name, exported folder or ``.ckpt``).

        ``options`` are those of ``ddcm.backbone.load``: device, dtype, heads, null, vae_dtype.
        """
        return cls(load(backbone, **options), None if codebook is None else load_codebook(codebook), batch_size)

    def reconstruct(self, audio, sample_rate: int, recipe: str | None = None, **settings) -> Output:
        """Audio (S,) or (channels, S) -> the same through mel, VAE (and codebook) and vocoder.

        ``settings`` override the recipe's: see ``ddcm.recipes.Recipe``.

        Raises:
            UserError: unknown recipe or setting out of range, audio that is empty or not finite, no codebook.
        """
        chosen = resolve("reconstruct", recipe, **settings)
        given = self._prepare(audio, sample_rate)
        return self._finish(given, self._encode(given, chosen), chosen)

    def transform(
        self, audio, sample_rate: int, prompt: str = "", negative_prompt: str = "", recipe: str | None = None,
        seed: int = 0, on_step: OnStep | None = None, **settings,
    ) -> Output:  # fmt: skip
        """Audio (S,) or (channels, S) -> audio that follows it, and the prompt where one is given.

        The input's latent is quantised, noised to ``strength`` and denoised again. The same seed gives the same
        samples. ``settings`` as for ``reconstruct``.
        """
        chosen = resolve("transform", recipe, **settings)
        given = self._prepare(audio, sample_rate)
        z = self._encode(given, chosen)
        timesteps = from_strength(chosen.strength, chosen.steps)
        if timesteps:
            z = self._diffuse(z, given, timesteps, chosen, prompt, negative_prompt, seed, on_step)
        said = {"prompt": prompt, "negative_prompt": negative_prompt, "seed": seed, "unet_steps": len(timesteps)}
        return self._finish(given, z, chosen, said)

    def compress(self, audio, sample_rate: int, on_step: OnStep | None = None, **settings) -> bytes:
        """Audio (S,) or (channels, S) -> the bytes of a ``.ddcm`` file, at ``kbps=1.0`` if nothing else is said.

        ``settings`` are those of ``ddcm.codec.encode.Settings``.
        """
        from ddcm.codec.encode import Settings, encode

        chosen = Settings(**settings)
        lanes = 1 if self.backbone.device.type == "cpu" else self.batch_size
        return encode(self._mono(audio, sample_rate), self.backbone, chosen, self.codebook, lanes, on_step)

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
        ``ddcm.codec.guided``."""
        from ddcm.codec.encode import Settings
        from ddcm.codec.guided import generate

        data = generate(self.backbone, prompt, duration_s, Settings(**settings), seed, on_call=on_call)
        return data, self.decompress(data, vocoder)

    def _mono(self, audio, sample_rate: int) -> torch.Tensor:
        """Audio (S,) or (channels, S) -> float32 (S,) on the CPU, at the backbone's rate."""
        audio = torch.as_tensor(np.asarray(audio) if not isinstance(audio, torch.Tensor) else audio)
        audio = audio.detach().float().cpu()
        if audio.ndim == 2:
            audio = audio.mean(dim=0)
        if audio.ndim != 1 or audio.numel() == 0:
            raise UserError(f"audio must be (S,) or (channels, S) with samples in it, not {tuple(audio.shape)}")
        if not torch.isfinite(audio).all():
            raise UserError("audio has NaN or infinite samples")
        return torch.from_numpy(resample(audio.numpy(), sample_rate, self.backbone.mel_spec.sample_rate))

    def _prepare(self, audio, sample_rate: int) -> _Input:
        spec, audio = self.backbone.mel_spec, self._mono(audio, sample_rate)
        levelled, moved = level(audio)
        # Silence is added to the waveform: a zero in the log-mel would be louder than most music.
        whole_cells = torch.nn.functional.pad(levelled, (0, -len(audio) % (4 * spec.hop)))
        return _Input(log_mel(whole_cells[None], spec), len(audio), moved)

    def _encode(self, given: _Input, recipe: Recipe) -> torch.Tensor:
        """The latent of each window (W, C, L, F), quantised where the recipe says so; on the backbone's device."""
        if recipe.quantizer == "hard" and self.codebook is None:
            raise UserError("this recipe quantises: name a codebook with --codebook, or use --quantizer none")
        total = given.mel.shape[2]
        size = min(total, windows.FRAMES)
        cut = [given.mel[:, :, start : start + size] for start in windows.starts(total)]
        latents = []
        for batch in torch.cat(cut).split(self.batch_size):
            z = self.backbone.encode(batch)
            if recipe.quantizer == "hard":
                z = self.codebook.quantizer(z).z
            latents.append(z)
        return torch.cat(latents)

    def _diffuse(self, z, given, timesteps, recipe, prompt, negative_prompt, seed, on_step) -> torch.Tensor:
        backbone = self.backbone
        denoise = backbone.denoiser(prompt, negative_prompt, recipe.guidance_scale)
        timeline = latent_noise(seed, given.mel.shape[2] // 4, z.shape[1], z.shape[3])
        frames = z.shape[2]
        first = [start // 4 for start in windows.starts(given.mel.shape[2])]
        noise = torch.stack([timeline[:, start : start + frames] for start in first]).to(z)
        x = add_noise(z, noise, float(backbone.alphas_cumprod[timesteps[0]]))
        results, in_all = [], len(timesteps) * -(-len(x) // self.batch_size)
        for number, batch in enumerate(x.split(self.batch_size)):
            before = number * len(timesteps)
            step = None if on_step is None else (lambda i, x0, before=before: on_step(before + i + 1, in_all))
            results.append(
                denoise_loop(denoise, batch, timesteps, backbone.alphas_cumprod, solver=recipe.solver, on_step=step)
            )
        return torch.cat(results)

    def _finish(self, given: _Input, z: torch.Tensor, recipe: Recipe, said: dict | None = None) -> Output:
        mels = torch.cat([self.backbone.decode(batch).cpu() for batch in z.split(self.batch_size)])
        total = given.mel.shape[2]
        mel = windows.join(mels, windows.starts(total), total)
        audio = given.level.undo(self._vocode(mel, recipe.vocoder)[: given.samples])
        notes = {"recipe": recipe, "backbone": self.backbone.name, "latent_digest": self.backbone.latent_digest}
        return Output(audio, self.backbone.mel_spec.sample_rate, mel, z.cpu(), notes | (said or {}))

    def _vocode(self, mel: torch.Tensor, vocoder: str) -> torch.Tensor:
        """mel (1, 1, T, M) -> audio (hop T,): in pieces with context, which is exact for a convolutional vocoder."""
        hop, total, pieces = self.backbone.mel_spec.hop, mel.shape[2], []
        for start in range(0, total, VOCODE_FRAMES):
            left = max(0, start - VOCODE_CONTEXT)
            stop = min(total, start + VOCODE_FRAMES)
            piece = mel[:, :, left : min(total, stop + VOCODE_CONTEXT)]
            audio = self.backbone.vocode(piece)[0].cpu()
            if vocoder == "refined":
                audio = refine(audio, piece, self.backbone.mel_spec)
            pieces.append(audio[(start - left) * hop : (stop - left) * hop])
        return torch.cat(pieces)
