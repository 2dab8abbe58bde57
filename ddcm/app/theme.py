"""The look of the page: theme, style sheet, and HTML templates. Fonts are those of the visitor's system."""

from __future__ import annotations

import gradio as gr
from jinja2 import Environment, PackageLoader


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
