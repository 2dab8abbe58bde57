"""The one exception that a user is meant to read."""


class UserError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: what is wrong, which file or flag, what to do. The command line prints it
    without a traceback and exits with code 2; from Python it is an ordinary ``ValueError``.
    """

    def __init__(self, message: str):
        super().__init__(to_one_line(message))


def to_one_line(text: str) -> str:
    """Line breaks, terminal codes and bytes that are no text as escapes: names and files may hold any of them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def describe_error(error: Exception) -> str:
    """What went wrong, as the end of a line: the operating system's words where there are some."""
    said = getattr(error, "strerror", None)
    return said.lower() if said else (str(error).splitlines() or [type(error).__name__])[0][:200]


def is_utf8(words: str) -> bool:
    """Not so of what a terminal, or a file system, makes of bytes that are not UTF-8."""
    try:
        words.encode()
    except UnicodeEncodeError:
        return False
    return True
