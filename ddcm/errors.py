"""The one exception that a user is meant to read."""


class UserError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: what is wrong, which file or flag, what to do. The command line prints it
    without a traceback and exits with code 2; from Python it is an ordinary ``ValueError``.
    """
