"""A mel becomes audio: by the backbone's vocoder, or by a fallback where the vocoder fails."""

from collections.abc import Callable, Iterable, Iterator

import torch

from ddcm.audio.griffin_lim import clamp_mel, griffin_lim
from ddcm.audio.refine import refine
from ddcm.audio.windows import split_with_context
from ddcm.backbone import Backbone
from ddcm.errors import UserError


def vocode(mel: torch.Tensor, chain: str, backbone: Backbone) -> tuple[torch.Tensor, str, list[str]]:
    """mel (1, 1, T, M) -> audio (hop T,) on the CPU, the strategy that gave it, and the reasons why others failed.

    ``chain`` names strategies, separated by commas. The next one is tried only if the one before raised an error or
    gave NaN or infinity. Out of memory is raised at once: it must not change the result. Raises UserError: all
    strategies failed; the message is the last one's.
    """
    failures: list[str] = []
    names = chain.split(",")
    for name in names:
        try:
            audio = STRATEGIES[name](mel, backbone)
            if not torch.isfinite(audio).all():
                raise UserError("the vocoder gave NaN or infinity")
            return audio, name, failures
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            if name == names[-1]:
                raise
            failures.append(f"{name}: {str(error).splitlines()[0]}")
    raise AssertionError("a chain has at least one strategy")


def vocode_stream(mels: Iterable[torch.Tensor], name: str, backbone: Backbone) -> Iterator[torch.Tensor]:
    """Consecutive mels (1, 1, n, M) -> pieces of audio (S,), as strategy ``backbone`` or ``refined`` gives the whole.
    Vocoded in pieces with context, which is exact for a convolutional vocoder."""
    return _vocode_pieces(mels, backbone, refined=name == "refined")


def _vocode_direct(mel: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """The vocoder in float32, on a mel clamped to the range that it was trained in."""
    return torch.cat([*_vocode_pieces([clamp_mel(mel, backbone.mel_spec)], backbone, dtype="float32")])


def _vocode_pieces(
    mels: Iterable[torch.Tensor], backbone: Backbone, refined: bool = False, dtype: str | None = None
) -> Iterator[torch.Tensor]:
    for mel, kept in split_with_context(mels, backbone.mel_spec.hop):
        audio = backbone.vocode(mel, dtype)[0].cpu()
        yield (refine(audio, mel, backbone.mel_spec) if refined else audio)[kept]


STRATEGIES: dict[str, Callable[[torch.Tensor, Backbone], torch.Tensor]] = {
    "backbone": lambda mel, backbone: torch.cat([*_vocode_pieces([mel], backbone)]),
    "refined": lambda mel, backbone: torch.cat([*_vocode_pieces([mel], backbone, refined=True)]),
    "direct": _vocode_direct,
    "griffin-lim": lambda mel, backbone: griffin_lim(mel, backbone.mel_spec),
}
