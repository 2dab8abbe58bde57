"""What the verbs return."""

import base64
import html
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch

from ddcm.audio.files import encode_audio, write_audio
from ddcm.recipes import Recipe


@dataclass(frozen=True)
class Info:
    """Settings that were used and measurements made on the way. None: does not apply to the verb."""

    backbone: str | None = None
    latent_digest: str | None = None
    recipe: Recipe | None = None
    features: str | None = None
    """the front end that made the mel"""
    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    unet_steps: int | None = None
    """denoising steps that were taken"""
    usage: float | None = None
    """share of the codebook's atoms that occur in the latent"""
    perplexity: float | None = None
    """of the atoms' frequencies in the latent"""
    vocoder: str | None = None
    """the one that made the audio"""
    vocoder_failed: tuple[str, ...] = ()
    """for each vocoder of the chain that failed before it: its name and why"""
    high_lift: float | None = None
    """factor on the magnitudes of the high bands"""
    windows: int | None = None
    """of a streamed recording"""
    clap_score: float | None = None
    """similarity of audio and prompt by CLAP, where candidates were ranked"""
    mode: str | None = None
    """of a ``.ddcm`` file"""
    kbps: float | None = None
    """of a ``.ddcm`` file"""

    def list_used(self) -> dict[str, Any]:
        """Entries that apply, by name, without the recipe."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "recipe"}
        return {name: value for name, value in values.items() if value not in (None, ())}


OutputType = Literal["np", "pt", "latent"]


@dataclass(frozen=True, repr=False)
class Output:
    """What a verb returns. Tensors are on the CPU."""

    audio: torch.Tensor
    """(S,) float32, as long as the input, at the input's level."""
    sample_rate: int
    mel: torch.Tensor
    """(1, 1, T, M): the vocoder's input."""
    latent: torch.Tensor
    """(W, C, L, F): the decoded z, a row for each window of 10.24 s."""
    info: Info = Info()
    others: tuple["Output", ...] = ()
    """The other candidates of several: by falling CLAP score, without a prompt by seed."""
    trace: tuple[tuple[int, torch.Tensor], ...] = ()
    """(timestep, log-mel (1, 1, T, M)) of the first window's x0 estimates, where a trace was asked for."""
    output_type: OutputType = "np"
    """What ``audios`` holds."""

    @property
    def audios(self) -> list[Any]:
        """This and the other candidates: arrays (S,), with ``pt`` tensors (S,), with ``latent`` latents z."""
        every = (self, *self.others)
        if self.output_type == "latent":
            return [out.latent for out in every]
        return [out.audio.numpy() if self.output_type == "np" else out.audio for out in every]

    def save(self, path: str | Path) -> Path:
        """Write the audio to a ``.wav`` (32-bit floats) or ``.flac`` (24 bits); the path."""
        write_audio(path, self.audio, self.sample_rate)
        return Path(path)

    def __repr__(self) -> str:
        facts = [f"{len(self.audio) / self.sample_rate:.2f} s at {self.sample_rate} Hz"]
        facts += [
            f"{name} {value!r}" for name in ("prompt", "seed") if (value := getattr(self.info, name)) not in (None, "")
        ]
        facts += [f"{len(self.others)} others"] if self.others else []
        return f"Output({', '.join(facts)})"

    def _repr_html_(self) -> str:
        """A player, for notebooks."""
        audio = base64.b64encode(encode_audio(self.audio, self.sample_rate, "flac")).decode()
        return f'<audio controls src="data:audio/flac;base64,{audio}"></audio><br>{html.escape(repr(self))}'


class Outputs(list[Output]):
    """What a call with lists returns: an ``Output`` for each prompt or clip."""

    @property
    def audios(self) -> list[Any]:
        """Those of all outputs, one after another."""
        return [audio for out in self for audio in out.audios]

    def save(self, folder: str | Path) -> list[Path]:
        """Write 1.wav, 2.wav, ... into the folder; the paths."""
        return [out.save(Path(folder) / f"{number}.wav") for number, out in enumerate(self, 1)]

    def _repr_html_(self) -> str:
        return "".join(f"<p>{out._repr_html_()}</p>" for out in self)
