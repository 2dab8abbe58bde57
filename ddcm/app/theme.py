"""How the page looks: theme, style, and the numbers as a row of tiles. Fonts are the visitor's own."""

from __future__ import annotations

import html
import json

import gradio as gr

LABELS = {
    "log_mel_mae_db": ("Mel error", "dB", "Mean difference of the log-mel spectrograms. 0 is best."),
    "log_mel_corr": ("Mel correlation", "", "Of the log-mel spectrograms. 1 is best."),
    "lsd_db": ("Spectral distance", "dB", "Of log spectra, root mean square. 0 is best."),
    "mrstft": ("STFT distance", "", "At three resolutions. 0 is best."),
    "si_sdr_db": ("SI-SDR", "dB", "Compares waveforms; a vocoder invents its phases, so low is usual."),
    "hf_ratio_db": ("Above 4 kHz", "dB", "Energy after over energy before. 0 is best."),
    "clap_score": ("CLAP score", "", "How well the sound fits the prompt. 1 is best."),
    "kbps": ("Rate", "kbps", "Bytes of the file x 8 / seconds, header and all."),
    "bytes": ("File", "bytes", "Size of the .ddcm file."),
    "pesq_wb": ("PESQ", "", "Speech quality as predicted, 1 to 4.6."),
    "stoi": ("STOI", "", "Speech intelligibility as predicted. 1 is best."),
    "visqol": ("ViSQOL", "", "Quality as predicted, 1 to 5."),
}
"""metric -> (label, unit, what it says)"""

TILES = (
    """<div class="tiles">${(() => {
  const labels = LABELS;
  const shown = v => Number.isInteger(v) ? v.toLocaleString("en") : v.toFixed(Math.abs(v) >= 100 ? 0 : 2);
  return Object.entries(value || {}).map(([name, number]) => {
    const [label, unit, about] = labels[name] || [name, "", ""];
    return `<div class="tile" data-name="${name}" title="${about} (${name})"><span>${label}</span>`
      + `<b>${shown(number)}<small>${unit}</small></b></div>`;
  }).join("");
})()}</div>"""
).replace("LABELS", json.dumps(LABELS))
"""Gradio fills it in the browser; through the API the value is the plain dictionary."""

STYLE = """
.gradio-container > main { max-width: 1280px; margin: 0 auto; padding: 20px 24px 48px !important; }
.html-container { padding: 0 !important; }
#masthead { display: flex; align-items: baseline; gap: 14px; flex-wrap: wrap; padding: 4px 2px 10px; }
#masthead h1 { font-size: 26px; font-weight: 700; letter-spacing: -.02em; margin: 0; }
#masthead p { margin: 0; color: var(--body-text-color-subdued); font-size: 14px; }
#masthead .facts { margin-left: auto; font-size: 12px; font-family: var(--font-mono); }
.lead p { color: var(--body-text-color-subdued); font-size: 14px; margin: 0; }
.about p { color: var(--body-text-color-subdued); font-size: 13px; line-height: 1.45; margin: -4px 2px 2px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 8px; }
.tile { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 8px 10px;
        background: var(--block-background-fill); cursor: help; }
.tile span { display: block; font-size: 11.5px; color: var(--body-text-color-subdued); white-space: nowrap;
             overflow: hidden; text-overflow: ellipsis; }
.tile b { font-size: 18px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile small { font-size: 11.5px; font-weight: 400; margin-left: 4px; color: var(--body-text-color-subdued); }
.picture { min-height: 180px; }
.picture img { object-fit: contain; background: #fff; padding-top: 24px; }
.report { min-height: 260px !important; border: 1px solid var(--border-color-primary); border-radius: 8px;
          background: var(--block-background-fill); }
.report iframe { width: 100%; height: 860px; border: 0; border-radius: 8px; display: block; }
"""


def theme() -> gr.themes.Base:
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


def masthead(facts: str) -> str:
    return (
        '<div id="masthead"><h1>ddcm</h1><p>Audio through a frozen latent diffusion model and a fitted codebook</p>'
        f'<p class="facts">{html.escape(facts)}</p></div>'
    )


def framed(report: str) -> str:
    """A whole HTML page inside this one, where its script can reach nothing of this one."""
    return f'<iframe sandbox="allow-scripts" title="comparison" srcdoc="{html.escape(report)}"></iframe>'
