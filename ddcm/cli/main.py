"""The command ``ddcm``. Heavy imports are inside the verbs, so that help and tables answer at once."""

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from ddcm import __version__
from ddcm.app.server_options import Limits, ServerOptions
from ddcm.cli import benchmark, codec, evaluation, fit, inference, info
from ddcm.cli.launcher import is_first_process, run_as_processes
from ddcm.cli.options import ModelSettings, Parser, accept_hyphens, complete, load_pipeline, read_settings, take
from ddcm.runtime.exit import run_to_exit_code
from ddcm.runtime.progress import progress_bar
from ddcm.runtime.quiet import silence_libraries


def serve(arguments: Namespace) -> int:
    """the same verbs on a web page

    ddcm serve
    ddcm serve --host 0.0.0.0 --password SECRET --max_seconds 20
    """
    options, limits = read_settings(arguments, ServerOptions), read_settings(arguments, Limits)
    with progress_bar(leave=False):
        from ddcm.app import server

        pipeline = load_pipeline(arguments, quantises=True)
    return server.serve(lambda: pipeline, options, limits)


SERVE = {serve: (take(ServerOptions), take(Limits), take(ModelSettings))}
VERBS = inference.VERBS | evaluation.VERBS | benchmark.VERBS | codec.VERBS | info.VERBS | SERVE
NAMES = {verb.__name__: verb for verb in VERBS}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; the exit code: 0, 2 where the user can mend it (one line on stderr), 130 on Ctrl-C, 143 if ended."""
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv[0] if argv else ""
    silence_libraries()
    if name in fit.VERBS:
        return fit.run(argv)

    def work() -> int:
        arguments = make_parser(name).parse_args(accept_hyphens(argv))
        flags = complete(arguments.verb, arguments[arguments.verb])
        code = run_as_processes(main, flags, argv)
        if code is None:
            return NAMES[arguments.verb](flags)
        if arguments.verb == "benchmark":
            benchmark.print_table(Path(flags.out))
        return code

    return run_to_exit_code(lambda: f"ddcm {name}" if name in NAMES else "ddcm", work, is_first_process)


def make_parser(only: str | None = None) -> Parser:
    """The parser of all verbs; with ``only`` the flags of that verb alone, which is faster."""
    about = "Audio through a frozen AudioLDM2 and a fitted codebook."
    parser = Parser(prog="ddcm", description=about, version=__version__)
    verbs = parser.add_subcommands(dest="verb")
    for name, verb in NAMES.items():
        about, *examples = (inspect.getdoc(verb) or "").splitlines()
        one = Parser(description=about, epilog="\n  ".join(["examples:", *filter(None, examples)]))
        for add in VERBS[verb] if only in (None, name) else ():
            add(one)
        verbs.add_subcommand(name, one, help=about)
    for name, about in fit.VERBS.items():
        verbs.add_subcommand(name, Parser(description=about), help=about)
    return parser
