"""``fit``, ``validate`` and ``test``: the command line of Lightning around the codebook, as in ``train.py``."""

VERBS = {
    "fit": "fit a codebook (as python train.py fit)",
    "validate": "metrics of a codebook on the validation clips (as python train.py validate)",
    "test": "metrics of a codebook on the test clips (as python train.py test)",
}
"""Their flags are those of ``ddcm.fit.cli``, which loads Lightning to list them."""


def run(argv: list[str]) -> int:
    """The command, verb and all; its exit code."""
    from ddcm.fit.cli import main

    try:
        main(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0
