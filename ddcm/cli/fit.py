"""``fit``, ``validate`` and ``test``: the command line of Lightning around the codebook, as in ``train.py``."""

from collections.abc import Sequence

from ddcm.cli.options import accept_hyphens
from ddcm.fit.arguments import check_root
from ddcm.runtime.exit import run_to_exit_code
from ddcm.runtime.progress import progress_bar
from ddcm.runtime.quiet import silence_libraries

VERBS = {
    "fit": "fit a codebook (as python train.py fit)",
    "validate": "metrics of a codebook on the validation clips (as python train.py validate)",
    "test": "metrics of a codebook on the test clips (as python train.py test)",
}
"""Their flags are those of ``ddcm.fit.cli``, which loads Lightning to list them."""


def run(argv: Sequence[str]) -> int:
    """The command, verb and all; its exit code. What can be checked is checked before Lightning is loaded."""
    silence_libraries()
    argv = accept_hyphens(argv)

    def work() -> int:
        if argv[:1] and argv[0] in VERBS:
            check_root(argv)
        with progress_bar(leave=False):
            import ddcm.fit.cli  # noqa: F401
        return 0

    if code := run_to_exit_code(lambda: "error", work, terminable=False):
        return code
    from ddcm.fit.cli import main

    try:
        main(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0
