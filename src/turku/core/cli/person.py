"""Questions to the person at the terminal. They go to standard error, so that standard output stays the result."""

import sys

from turku.core.kernel import process_arguments
from turku.core.secret import Secret
from turku.errors import UsageError

YES_HINT = "--yes does it without asking, and --dry-run shows what would be done"
_LONGEST_LINE = 64 * 1024


def is_there() -> bool:
    """Return True if somebody can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def says_yes(question: str, *, hint: str = YES_HINT) -> bool:
    """Return the answer to a question of yes or no, which is no by default. Raises UsageError if nobody is there."""
    if not is_there():
        raise UsageError(f"nobody can be asked: {question}", hint=hint)
    return answer(f"{question} [y/N]").lower() in ("y", "yes")


def text(question: str, default: str) -> str:
    """Return an answer, or the default if it is empty or nobody is there."""
    return (answer(f"{question} [{default}]:") or default) if is_there() else default


def secret(question: str) -> Secret:
    """Return an answer that is not shown. Raises UsageError if nobody is there."""
    import getpass

    if not is_there():
        raise UsageError(f"nobody can be asked: {question}", hint="run it in a terminal, or see --help")
    return Secret(getpass.getpass(f"{question}: "))


def input_line() -> str:
    """Return the next line of standard input, which may hold what no list of processes must show."""
    return "" if sys.stdin is None else sys.stdin.readline(_LONGEST_LINE).rstrip("\r\n")


def secret_argument(word: str) -> str:
    """Return an argument that is a secret, and hide it from lists of processes. For ``-``, return a line of input."""
    if word == "-":
        return input_line()
    process_arguments.hide(word)
    return word


def answer(question: str) -> str:
    """Return the line that is typed, which is empty at the end of input."""
    print(f"{question} ", end="", file=sys.stderr, flush=True)  # noqa: T201
    typed = sys.stdin.readline()
    if not typed:
        print(file=sys.stderr)  # noqa: T201
    return typed.strip()
