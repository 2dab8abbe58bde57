"""A mel becomes audio: by the backbone's vocoder, or by a fallback where the vocoder fails."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch

from ddcm.audio.griffin_lim import clamp_mel, griffin_lim
from ddcm.audio.refine import refine
from ddcm.audio.windows import split_with_context
from ddcm.backbone import Backbone
from ddcm.errors import UserError
from ddcm.runtime.progress import Progress


def vocode(
    mel: torch.Tensor, chain: str, backbone: Backbone, progress: Progress | None = None
) -> tuple[torch.Tensor, str, list[str]]:  # fmt: skip
    """mel (1, 1, T, M) -> audio (hop T,) on the CPU, the strategy that gave it, and the reasons why others failed.
    ``chain`` names strategies, separated by commas. The next one is tried only if the one before raised an error or
    gave NaN or infinity. Out of memory is raised at once: it must not change the result. ``progress`` counts the pieces
    of ``split_with_context``. Raises UserError: all strategies failed; the message is the last one's."""
    failures: list[str] = []
    names = chain.split(",")
    for name in names:
        try:
            audio = STRATEGIES[name](mel, backbone, progress)
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


def vocode_stream(
    mels: Iterable[torch.Tensor], name: str, backbone: Backbone, progress: Progress | None = None
) -> Iterator[torch.Tensor]:  # fmt: skip
    """Consecutive mels (1, 1, n, M) -> pieces of audio (S,), as a strategy other than ``griffin-lim`` gives the whole.
    Vocoded in pieces with context, which is exact for a convolutional vocoder. ``refined`` corrects the audio towards
    the mel. ``direct`` is in float32, on a mel clamped to the range that the vocoder was trained in."""
    spec, dtype = backbone.mel_spec, "float32" if name == "direct" else None
    for mel, kept in split_with_context(mels, spec.hop):
        audio = backbone.vocode(clamp_mel(mel, spec) if name == "direct" else mel, dtype)[0].cpu()
        yield (refine(audio, mel, spec) if name == "refined" else audio)[kept]
        if progress is not None:
            progress.step()


def _vocode_whole(name: str, mel: torch.Tensor, backbone: Backbone, progress: Progress | None) -> torch.Tensor:
    return torch.cat([*vocode_stream([mel], name, backbone, progress)])


STRATEGIES: dict[str, Callable[[torch.Tensor, Backbone, Progress | None], torch.Tensor]] = {
    **{name: partial(_vocode_whole, name) for name in ("backbone", "refined", "direct")},
    "griffin-lim": lambda mel, backbone, progress: griffin_lim(mel, backbone.mel_spec),
}
