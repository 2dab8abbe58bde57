"""The command ``ddcm``. Heavy imports are inside the verbs, so that help and tables answer at once."""

import sys
from collections.abc import Sequence

from jsonargparse import Namespace

from ddcm.app.server_options import Limits, ServerOptions
from ddcm.cli import codec, evaluation, fit, inference, info
from ddcm.cli.launcher import is_first_process, run_as_processes
from ddcm.cli.options import ModelSettings, Parser, accept_hyphens, load_pipeline, read_settings, take
from ddcm.runtime.exit import run_to_exit_code


def serve(arguments: Namespace) -> int:
    """the same verbs on a web page"""
    from ddcm.app import server

    options, limits = read_settings(arguments, ServerOptions), read_settings(arguments, Limits)
    return server.serve(lambda: load_pipeline(arguments, quantises=True), options, limits)


SERVE = {serve: (take(ServerOptions), take(Limits), take(ModelSettings))}
VERBS = inference.VERBS | evaluation.VERBS | codec.VERBS | info.VERBS | SERVE
NAMES = {verb.__name__: verb for verb in VERBS}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; the exit code: 0, 2 where the user can mend it (one line on stderr), 130 on Ctrl-C, 143 if ended."""
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv[0] if argv else ""
    if name in fit.VERBS:
        return fit.run(argv)

    def work() -> int:
        arguments = make_parser(name).parse_args(accept_hyphens(argv))
        flags = arguments[arguments.verb]
        code = run_as_processes(main, flags, argv)
        return NAMES[arguments.verb](flags) if code is None else code

    return run_to_exit_code(lambda: f"ddcm {name}" if name in NAMES else "ddcm", work, is_first_process)


def make_parser(only: str | None = None) -> Parser:
    """The parser of all verbs; with ``only`` the flags of that verb alone, which is faster."""
    parser = Parser(prog="ddcm", description="Audio through a frozen AudioLDM2 and a fitted codebook.")
    verbs = parser.add_subcommands(dest="verb")
    for name, verb in NAMES.items():
        one = Parser(description=verb.__doc__)
        for add in VERBS[verb] if only in (None, name) else ():
            add(one)
        verbs.add_subcommand(name, one, help=verb.__doc__)
    for name, about in fit.VERBS.items():
        verbs.add_subcommand(name, Parser(description=about), help=about)
    return parser
