"""EnCodec and DAC of transformers, from a folder or the hub's cache: to compare with. Nothing is downloaded.

Both are residual codebooks on the frames of a convolutional autoencoder (arXiv 2210.13438, arXiv 2306.06546).
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ddcm.audio.files import resample
from ddcm.codec.codes.vq import digest
from ddcm.errors import UserError, describe_error
from ddcm.evaluation.peers import Decoded, System, count_bytes, fit_length
from ddcm.evaluation.signal_metrics import SAMPLE_RATE
from ddcm.runtime.files import resolve_shipped
from ddcm.runtime.progress import OnStep

MOST_KBPS = 12.0  # of the rates that are run where none is asked for
Encoded = tuple[Callable[[], torch.Tensor], int]
"""A decoder of what was encoded, to audio (1, 1, S) at the model's rate; and its bytes."""


def list_neural(name: str, device: torch.device, kbps: Sequence[float] | None = None) -> list[System]:
    """EnCodec at its target rates or DAC with its first codebooks; of these the rates up to ``MOST_KBPS``, or those of
    ``kbps``, to two digits.

    Args:
        name: a folder, or a name on the hub whose files are in the hub's cache.

    Raises UserError: no such model on this machine, a model of another kind, or one for stereo.
    """
    model = _load(name).to(device)
    config, rate = model.config, model.config.sampling_rate
    rates: dict[float, Any] = {}
    if config.model_type == "encodec":
        rates = {float(target): target for target in config.target_bandwidths}
    else:
        bits = config.codebook_size.bit_length() - 1
        frames = rate / config.hop_length
        rates = {frames * bits * number / 1000: number for number in range(1, config.n_codebooks + 1)}
    wanted = (
        [each for each in rates if each <= MOST_KBPS]
        if kbps is None
        else [each for each in rates if round(each, 2) in {round(one, 2) for one in kbps}]
    )
    about = {"codec": config.model_type, "weights": digest(model)}
    encode = _encode_encodec if config.model_type == "encodec" else _encode_dac
    systems = []
    for each in wanted:
        code = partial(_code, model, partial(encode, model, rates[each]))
        systems.append(System(f"{Path(name).name} {each:.4g}", about | {"kbps": each}, code))
    return systems


def _load(name: str) -> Any:
    from transformers import AutoConfig, DacModel, EncodecModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    path = resolve_shipped(name)
    source = str(path) if path.is_dir() else name
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=True)
        kinds = {"encodec": EncodecModel, "dac": DacModel}
        if config.model_type not in kinds:
            raise UserError(f"{name}: a model of the kind {config.model_type}, not encodec or dac")
        if getattr(config, "audio_channels", 1) != 1:
            raise UserError(f"{name}: a codec for stereo; name one for mono, such as facebook/encodec_24khz")
        return kinds[config.model_type].from_pretrained(source, local_files_only=True, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        advice = "" if path.is_dir() else f"; neither opus, codec2 nor a folder, and not downloaded: hf download {name}"
        raise UserError(f"{name}: not readable as EnCodec or DAC ({describe_error(error)}){advice}") from error


@torch.inference_mode()
def _code(
    model: Any, encode: Callable[[torch.Tensor], Encoded], audio: torch.Tensor, on_step: OnStep | None = None
) -> Decoded:
    rate = model.config.sampling_rate
    begin = time.perf_counter()
    x = torch.from_numpy(resample(audio.numpy(), SAMPLE_RATE, rate))[None, None].to(model.device)
    decode, size = encode(x)
    middle = time.perf_counter()
    decoded = resample(decode()[0, 0].float().cpu().numpy(), rate, SAMPLE_RATE)
    return Decoded(
        fit_length(torch.from_numpy(decoded), len(audio)), size, middle - begin, time.perf_counter() - middle
    )


def _encode_encodec(model: Any, target: float, x: torch.Tensor) -> Encoded:
    out = model.encode(x, bandwidth=target)
    scales = 0 if out.audio_scales[0] is None else 4 * len(out.audio_scales)  # bytes of a float for each chunk
    size = count_bytes(out.audio_codes.numel(), model.config.codebook_size) + scales

    def decode() -> torch.Tensor:
        return model.decode(
            out.audio_codes, out.audio_scales, last_frame_pad_length=out.last_frame_pad_length
        ).audio_values

    return decode, size


def _encode_dac(model: Any, codebooks: int, x: torch.Tensor) -> Encoded:
    x = torch.nn.functional.pad(x, (0, -x.shape[-1] % model.config.hop_length))
    codes = model.encode(x, n_quantizers=codebooks).audio_codes
    return lambda: model.decode(audio_codes=codes).audio_values[None], count_bytes(
        codes.numel(), model.config.codebook_size
    )
