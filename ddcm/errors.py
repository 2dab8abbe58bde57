"""The one exception that a user can mend, and text for messages."""


class UserError(ValueError):
    """An input that cannot be used. The message is one line: what is wrong, which file or flag, what to do. The command
    line prints it without a traceback and exits with code 2. From Python it is an ordinary ``ValueError``."""

    def __init__(self, message: str):
        super().__init__(to_one_line(message))


def to_one_line(text: str) -> str:
    """Escape line breaks, terminal codes and undecodable bytes: names and files may contain any of them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def describe_error(error: Exception) -> str:
    """The cause of an error, to end a message with: the operating system's text where there is one."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def is_utf8(text: str) -> bool:
    """True if the text encodes as UTF-8."""
    return text.encode(errors="ignore").decode() == text
