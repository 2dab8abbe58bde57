"""A listening test by ITU-R BS.1534-3 (MUSHRA) as one page that works offline; answers as webMUSHRA's."""

import base64
import math
from pathlib import Path

import torch

from ddcm.audio.files import encode_audio
from ddcm.evaluation.html_report import TEMPLATES, Entry
from ddcm.runtime.files import write_atomically

REFERENCE, ANCHOR = "reference", "anchor35"
MOST_SYSTEMS = 10  # In one trial: with hidden reference and anchor 12 sounds, the most that BS.1534-3 recommends.
LONGEST_S = 12.0  # Of a sound, by BS.1534-3.
PEAK = 0.9  # Of the loudest sample of all sounds.


def write_blind_page(path: Path, test_id: str, entries: list[Entry], sample_rate: int) -> list[str]:
    """Write the page; returns the names of the systems in it.

    The first entry is the reference. The systems are the entries that were measured against it; what was generated from
    a prompt has no reference to be compared with. Each listener's order follows from the name of the test and that of
    the listener, so that it can be repeated.
    """
    reference, *others = entries
    systems = {entry.name: entry.audio for entry in others if not math.isnan(entry.metrics["log_mel_mae_db"])}
    sounds = prepare_sounds(reference.audio, systems, sample_rate)
    encoded = {
        name: base64.b64encode(encode_audio(audio, sample_rate, "flac")).decode() for name, audio in sounds.items()
    }
    data = {
        "test": test_id, "reference": REFERENCE, "anchor": ANCHOR, "most": MOST_SYSTEMS,
        "systems": list(systems), "sounds": encoded,
    }  # fmt: skip
    text = TEMPLATES.get_template("blind.html").render(title=f"Listening test: {test_id}", data=data)
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return list(systems)


def prepare_sounds(
    reference: torch.Tensor, systems: dict[str, torch.Tensor], sample_rate: int
) -> dict[str, torch.Tensor]:
    """The sounds of the test by name, at most ``LONGEST_S`` long, all as loud as the reference (S,), with one gain for
    all that keeps the loudest peak at ``PEAK``."""
    sounds = {REFERENCE: reference, ANCHOR: low_pass(reference, sample_rate)} | systems
    sounds = {name: audio[: round(LONGEST_S * sample_rate)] for name, audio in sounds.items()}
    target = measure_loudness(sounds[REFERENCE], sample_rate)
    for _ in range(3):  # the gate of the loudness is absolute, so one gain is not exact
        for name, audio in sounds.items():
            gain_db = target - measure_loudness(audio, sample_rate)
            sounds[name] = audio * 10 ** (gain_db / 20) if math.isfinite(gain_db) else audio  # one of them is silent
    peak = max(float(audio.abs().max()) for audio in sounds.values())
    return {name: audio * min(1.0, PEAK / max(peak, 1e-9)) for name, audio in sounds.items()}


def measure_loudness(audio: torch.Tensor, sample_rate: int) -> float:
    """Integrated loudness of audio (S,) in LUFS (ITU-R BS.1770-4); shorter audio than a block of 0.4 s is padded."""
    from torchaudio.functional import loudness

    audio = torch.nn.functional.pad(audio, (0, max(0, round(0.4 * sample_rate) - len(audio))))
    return float(loudness(audio[None].float(), sample_rate))


def low_pass(audio: torch.Tensor, sample_rate: int, edge_hz: float = 3500.0, stop_hz: float = 4000.0) -> torch.Tensor:
    """The low anchor of BS.1534-3: audio (S,) up to 3.5 kHz. A raised cosine falls to zero at 4 kHz, where the standard
    asks for 25 dB."""
    hertz = torch.fft.rfftfreq(len(audio), 1 / sample_rate)
    slope = ((hertz - edge_hz) / (stop_hz - edge_hz)).clamp(0, 1)
    return torch.fft.irfft(torch.fft.rfft(audio) * (0.5 + 0.5 * torch.cos(torch.pi * slope)), n=len(audio))
