"""What people read of each metric: label, unit, one line that explains it. In order of importance."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricLabel:
    text: str
    unit: str
    explanation: str


LABELS: dict[str, MetricLabel] = {
    "log_mel_mae_db": MetricLabel("Mel error", "dB", "Mean difference of the log-mel spectrograms. 0 is best."),
    "kbps": MetricLabel("Rate", "kbps", "Bytes of the file x 8 / seconds, with its header."),
    "clap_score": MetricLabel("CLAP score", "", "How well the audio fits the prompt. Higher is better, 1 is most."),
    "hf_ratio_db": MetricLabel("Above 4 kHz", "dB", "Energy above 4 kHz, over that of the input. 0 is best."),
    "visqol": MetricLabel("ViSQOL", "", "Predicted quality, 1 to 5. Higher is better."),
    "mrstft": MetricLabel("STFT distance", "", "Distance of the spectra at three resolutions. 0 is best."),
    "log_mel_corr": MetricLabel("Mel correlation", "", "Correlation of the log-mel spectrograms. 1 is best."),
    "lsd_db": MetricLabel("Spectral distance", "dB", "Root mean square difference of the log spectra. 0 is best."),
    "pesq_wb": MetricLabel("PESQ", "", "Predicted speech quality, 1 to 4.6. Higher is better."),
    "stoi": MetricLabel("STOI", "", "Predicted speech intelligibility. 1 is best."),
    "dnsmos": MetricLabel("DNSMOS", "", "Predicted speech quality of the result alone, 1 to 5. Higher is better."),
    "speaker_similarity": MetricLabel("Speaker", "", "How alike the voices are. 1 is best."),
    "word_error": MetricLabel("Word error", "", "Words that a recogniser reads differently, over all. 0 is best."),
    "si_sdr_db": MetricLabel("SI-SDR", "dB", "Compares waveforms. A vocoder invents phases, so low values are usual."),
    "bytes": MetricLabel("File", "bytes", "Size of the .ddcm file."),
    "seconds": MetricLabel("Time", "s", "Time to compute it, with the model already loaded."),
    "peak_mib": MetricLabel("Memory", "MiB", "Peak memory while it was computed."),
}  # fmt: skip


def label(name: str) -> MetricLabel:
    return LABELS.get(name, MetricLabel(name, "", ""))


def sort_metrics(names: Iterable[str]) -> list[str]:
    """The names in order of importance; unknown ones come last."""
    order = list(LABELS)
    return sorted(names, key=lambda name: order.index(name) if name in LABELS else len(order))


def format_value(value: float) -> str:
    """Two decimals, none from 100 on; "-" for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"
