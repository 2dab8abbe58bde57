"""``serve`` on the command line: the page."""

from jsonargparse import Namespace

from ddcm.app.server_options import Limits, ServerOptions
from ddcm.cli.loading import load_pipeline
from ddcm.cli.options import ModelSettings, Verbs, read_settings, take


def serve(arguments: Namespace) -> int:
    """the same verbs on a web page"""
    from ddcm.app import server

    options, limits = read_settings(arguments, ServerOptions), read_settings(arguments, Limits)
    return server.serve(lambda: load_pipeline(arguments, quantises=True), options, limits)


VERBS: Verbs = {serve: (take(ServerOptions), take(Limits), take(ModelSettings))}
