"""Measure codecs on recordings: a row for each recording and system, kept so that an interrupted run goes on."""

import hashlib
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ddcm.audio.files import limit_to_full_scale, read_audio, resample
from ddcm.backbone.latent_diffusion import FrozenBackbone
from ddcm.codec.codec_settings import WITH_CODEBOOK, CodecSettings
from ddcm.codec.codes import vq
from ddcm.codec.format import VERSION
from ddcm.errors import UserError
from ddcm.evaluation.evaluate_files import Row, measure
from ddcm.evaluation.neural_codecs import list_neural
from ddcm.evaluation.peers import ENCODERS, Decoded, System, find_encoders, fit_length, list_by_ffmpeg
from ddcm.evaluation.perceptual import installed
from ddcm.evaluation.rate_distortion import COMMON
from ddcm.evaluation.signal_metrics import METRICS, SAMPLE_RATE
from ddcm.pipeline import DDCMPipeline
from ddcm.quantize.pretrained import Codebook
from ddcm.runtime.files import write_atomically
from ddcm.runtime.progress import OnStep, part_of

StoredRow = dict[str, Any]
"""``COMMON``, metrics, and what they depend on: ``digest`` of the recording and ``conditions``."""


def list_ours(pipe: DDCMPipeline, settings: Sequence[CodecSettings]) -> list[System]:
    """The codec with each of the settings; for vq, with each number of the codebook's levels. Raises UserError: no
    codebook where one is needed."""
    systems = []
    for each in settings:
        if each.mode not in WITH_CODEBOOK:
            systems.append(_our_system(pipe, f"{each.mode} {each.rate_kbps:g}", each))
            continue
        codebook = _codebook(pipe, each)
        if codebook is None:
            raise UserError(f"mode {each.mode} needs a fitted codebook: name one with --codebook")
        quantizer = codebook.quantizer
        if each.mode != "vq":
            systems.append(_our_system(pipe, f"{each.mode} {each.rate_kbps:g}", each))
            continue
        for levels in range(1, quantizer.num_quantizers + 1):
            name = f"vq {quantizer.codebook_size} atoms, levels {levels}"
            systems.append(_our_system(pipe, name, CodecSettings(**asdict(each) | {"levels": levels})))
    return systems


def _codebook(pipe: DDCMPipeline, settings: CodecSettings) -> Codebook | None:
    """The codebook that the mode codes with."""
    if settings.mode not in WITH_CODEBOOK:
        return None
    return pipe.residual_codebook if settings.mode == "hybrid" else pipe.codebook


def _our_system(pipe: DDCMPipeline, name: str, settings: CodecSettings) -> System:
    backbone = pipe.backbone
    about: dict[str, Any] = {key: value for key, value in asdict(settings).items() if value is not None}
    about |= {"backbone": backbone.digest, "dtype": str(backbone.dtype), "format": VERSION}
    if isinstance(backbone, FrozenBackbone):  # the vocoder is in no digest of the format: it is not needed to decode
        about |= {
            "vocoder": backbone.parts.digest("vocoder")[:16],
            "null": backbone.null,
            "vae_dtype": str(backbone.vae_dtype),
        }
    if (codebook := _codebook(pipe, settings)) is not None:
        about["codebook"] = vq.digest(codebook.quantizer)

    def code(audio: torch.Tensor, on_step: OnStep | None) -> Decoded:
        for part in ("vae", "vocoder", "unet")[: 2 if settings.mode == "vq" else 3]:
            getattr(backbone, part, None)  # loads weights at its first use: not a part of any time
        begin = time.perf_counter()
        data = pipe.compress(audio, SAMPLE_RATE, part_of(on_step, 0, 2), settings)
        middle = time.perf_counter()
        out = pipe.decompress(data, on_step=part_of(on_step, 1, 2))
        end = time.perf_counter()
        samples = limit_to_full_scale(out.audio, name).numpy()  # as ``decompress`` writes it
        decoded = torch.from_numpy(resample(samples, out.sample_rate, SAMPLE_RATE))
        return Decoded(fit_length(decoded, len(audio)), len(data), middle - begin, end - middle)

    return System(name, about, code)


def list_peers(
    names: Sequence[str] | None, kbps: Sequence[float] | None, device: torch.device
) -> list[System]:  # fmt: skip
    """Other codecs at their usual rates, or at those of ``kbps`` that each has.

    Args:
        names: ``opus``, ``codec2``, or folders and hub names of EnCodec and DAC. None: opus, if it is installed.

    Raises UserError: one that is not installed, or that has none of the rates.
    """
    if names is None:
        names = ["opus"] if ENCODERS["opus"].name in find_encoders() else []
    systems = []
    for name in names:
        own = list_by_ffmpeg(name, kbps) if name in ENCODERS else list_neural(name, device, kbps)
        if not own:
            known = list_by_ffmpeg(name) if name in ENCODERS else list_neural(name, device)
            rates = ", ".join(system.name.rpartition(" ")[2] for system in known)
            raise UserError(f"--peer_kbps: {name} has none of these rates; it has, for example, {rates}")
        systems += own
    return systems


@dataclass(frozen=True)
class Benchmark:
    """What is measured. Raises UserError: two systems of one name."""

    systems: Sequence[System]
    speech: bool = False
    """also the metrics that are made for speech, of those that are installed"""
    most_s: float | None = None
    """seconds of each recording, from its beginning"""

    def __post_init__(self):
        names = [system.name for system in self.systems]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UserError(f"two systems are named {min(twice)}; name each peer and each rate once")

    @property
    def metrics(self) -> list[str]:
        return [*METRICS, *(installed(judges=True) if self.speech else ())]

    def measure_recording(
        self, source: Path, name: str, store: Path, overwrite: bool = False, on_step: OnStep | None = None
    ) -> float:
        """Measure each system whose row is not in ``store``, a file of JSON lines, and add its row at once; seconds of
        sound. A row counts if the recording, the settings, the weights and the metrics are the same. ``overwrite``: no
        row counts. Raises UserError: the recording cannot be read; or systems failed, after the others."""
        with open(source, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        kept = {} if overwrite else {row["system"]: row for row in read_stored(store) if row["digest"] == digest}
        if not kept:
            store.unlink(missing_ok=True)
        todo = [system for system in self.systems if not self.is_current(system, kept.get(system.name))]
        if not todo:
            return float(kept[self.systems[0].name]["seconds"])
        audio = read_audio(source, SAMPLE_RATE)
        audio = audio if self.most_s is None else audio[: max(1, round(self.most_s * SAMPLE_RATE))]
        failures, seconds = [], len(audio) / SAMPLE_RATE
        for number, system in enumerate(todo):
            on_system = part_of(on_step, number, len(todo))
            try:
                coded = system.code(audio, part_of(on_system, 0, 2))
            except UserError as error:
                failures.append(f"{system.name}: {error}")
                continue
            on_metric = part_of(on_system, 1, 2)
            values = measure(audio, coded.audio, judges=self.speech, on_step=on_metric, speech=self.speech)
            common = (system.name, name, seconds, coded.size, coded.encode_s, coded.decode_s)
            row = dict(zip(COMMON, common, strict=True)) | values
            kept[system.name] = row | {"digest": digest, "conditions": self._conditions(system)}
            write_stored(store, kept.values())
        if failures:
            raise UserError("; ".join(failures))
        return seconds

    def is_current(self, system: System, row: StoredRow | None) -> bool:
        """Whether the stored row was measured under the same conditions."""
        return row is not None and row["conditions"] == self._conditions(system)

    def _conditions(self, system: System) -> dict[str, Any]:
        return json.loads(json.dumps(system.settings | {"most_s": self.most_s, "metrics": self.metrics}))

    def collect(self, stores: Iterable[Path]) -> tuple[list[Row], list[dict[str, Any]]]:
        """The rows of all recordings, system by system; and of each what it depends on."""
        stored = [{row["system"]: row for row in read_stored(store)} for store in stores]
        found = [
            rows[system.name]
            for system in self.systems
            for rows in stored
            if self.is_current(system, rows.get(system.name))
        ]
        numbers = [{key: row[key] for key in (*COMMON, *self.metrics)} for row in found]
        return numbers, [{key: row[key] for key in ("digest", "conditions")} for row in found]


def read_stored(path: Path) -> list[StoredRow]:
    """The rows of a recording; none if the file is missing or is another's."""
    if not path.is_file():
        return []
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [{key: math.nan if value is None else value for key, value in row.items()} for row in rows
                if {"digest", "conditions", *COMMON} <= row.keys()]  # fmt: skip
    except (ValueError, AttributeError):
        return []


def write_stored(path: Path, rows: Iterable[StoredRow]) -> None:
    """NaN is null."""
    lines = [{key: None if value != value else value for key, value in row.items()} for row in rows]
    with write_atomically(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
