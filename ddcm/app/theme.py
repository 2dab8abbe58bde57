"""The look of the page: theme, style sheet, and HTML templates. Fonts are those of the visitor's system."""

from __future__ import annotations

import gradio as gr
from jinja2 import Environment, PackageLoader

LABELS = {
    "log_mel_mae_db": ("Mel error", "dB", "Mean difference of the log-mel spectrograms. 0 is best."),
    "log_mel_corr": ("Mel correlation", "", "Correlation of the log-mel spectrograms. 1 is best."),
    "lsd_db": ("Spectral distance", "dB", "Root mean square difference of log spectra. 0 is best."),
    "mrstft": ("STFT distance", "", "Distance at three STFT resolutions. 0 is best."),
    "si_sdr_db": ("SI-SDR", "dB", "Compares waveforms. A vocoder invents the phases, so low values are usual."),
    "hf_ratio_db": ("Above 4 kHz", "dB", "Energy of the result over energy of the input. 0 is best."),
    "clap_score": ("CLAP score", "", "How well the audio fits the prompt. 1 is best."),
    "kbps": ("Rate", "kbps", "Bytes of the file x 8 / seconds, header included."),
    "bytes": ("File", "bytes", "Size of the .ddcm file."),
    "pesq_wb": ("PESQ", "", "Predicted speech quality, 1 to 4.6."),
    "stoi": ("STOI", "", "Predicted speech intelligibility. 1 is best."),
    "visqol": ("ViSQOL", "", "Predicted quality, 1 to 5."),
}
"""Metric -> (label, unit, explanation)."""


def render(template: str, **values: object) -> str:
    """A file of ``templates/`` with ``values``, which are escaped."""
    return Environment(loader=PackageLoader("ddcm.app"), autoescape=True).get_template(template).render(values)


def build_theme() -> gr.themes.Base:
    system = ("ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
    mono = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
    return gr.themes.Base(
        primary_hue="indigo", neutral_hue="slate", radius_size="lg",
        font=[gr.themes.Font(name) for name in system], font_mono=[gr.themes.Font(name) for name in mono],
    ).set(
        body_background_fill="*neutral_50", body_background_fill_dark="*neutral_950",
        block_shadow="0 1px 2px 0 rgb(15 23 42 / 0.05)", block_border_width="1px",
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white", slider_color="*primary_600",
    )  # fmt: skip
