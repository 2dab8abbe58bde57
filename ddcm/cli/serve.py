"""``serve`` on the command line: the page."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser, Namespace

from ddcm.app.settings import Limits, ServerOptions
from ddcm.cli.loading import load_pipeline
from ddcm.cli.options import ModelSettings, add_settings, read_settings


def run(arguments: Namespace) -> int:
    from ddcm.app.server import serve

    options, limits = read_settings(arguments, ServerOptions), read_settings(arguments, Limits)
    return serve(lambda: load_pipeline(arguments, quantises=True), options, limits)


def _add_flags(parser: ArgumentParser) -> None:
    for settings in (ServerOptions, Limits, ModelSettings):
        add_settings(parser, settings)


VERBS: dict[str, tuple[str, Any, Any]] = {"serve": ("the same verbs on a web page", _add_flags, run)}
