"""The command ``ddcm``. Heavy imports are inside the verbs, so that help and tables answer at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ddcm.cli import codec, fit, inference, info, report, serve
from ddcm.cli.launcher import is_first_process, run_as_processes
from ddcm.cli.options import Parser, accept_hyphens
from ddcm.runtime.exit import run_to_exit_code

GROUPS = (inference, report, codec, info, serve, fit)
"""Modules with VERBS, name -> (description, flags, function): ``flags(parser)`` adds them, ``function(arguments)`` runs
the verb and returns an exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; the exit code: 0, 2 where the user can mend it (one line on stderr), 130 on Ctrl-C, 143 if ended."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb = words[0] if words else ""
    if verb in fit.VERBS:
        return fit.run(words)
    verbs = {name: run for group in GROUPS for name, (_, _, run) in group.VERBS.items()}

    def work() -> int:
        arguments = make_parser(verb).parse_args(accept_hyphens(words))
        flags = arguments[arguments.verb]
        code = run_as_processes(main, flags, words)
        return verbs[arguments.verb](flags) if code is None else code

    return run_to_exit_code(lambda: f"ddcm {verb}" if verb in verbs else "ddcm", work, is_first_process)


def make_parser(only: str | None = None) -> Parser:
    """The parser of all verbs; with ``only`` the flags of that verb alone, which is faster."""
    parser = Parser(prog="ddcm", description="Audio through a frozen AudioLDM2 and a fitted codebook.")
    verbs = parser.add_subcommands(dest="verb")
    for group in GROUPS:
        for name, (about, add_flags, _) in group.VERBS.items():
            one = Parser(description=about)
            if only in (None, name):
                add_flags(one)
            verbs.add_subcommand(name, one, help=about)
    return parser
