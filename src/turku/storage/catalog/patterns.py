"""Patterns that a person types to find a file."""

import fnmatch
import re
from collections.abc import Callable

from turku.errors import UsageError

Matcher = Callable[[bytes, bytes], bool]
"""A test whether the name (second) in the directory (first) matches."""
_LIMIT_BYTES = 1000
_WILD = re.compile(rb"[*?\[]")


def matcher(pattern: bytes, *, ignore_case: bool = False) -> Matcher:
    """Return the test for a pattern: a part of a name, or a whole name if it contains ``*``, ``?`` or ``[...]``.

    A pattern with a slash is compared with the path instead of the name, and its ``*`` matches slashes too. Only the
    case of ASCII letters can be ignored, as names are bytes. Raises UsageError for an empty or a very long pattern.
    """
    if not pattern or len(pattern) > _LIMIT_BYTES:
        raise UsageError(
            f"a pattern has 1 to {_LIMIT_BYTES} bytes", hint="such as 'passwd', '*.odt' or 'home/*/invoice*'"
        )
    flags = re.IGNORECASE if ignore_case else 0
    if _WILD.search(pattern):
        # Latin-1 maps each byte to a character.
        find = re.compile(fnmatch.translate(pattern.decode("latin-1")).encode("latin-1"), flags).match
    else:
        find = re.compile(re.escape(pattern), flags).search
    if b"/" in pattern:
        return lambda directory, name: find(directory + b"/" + name if directory else name) is not None
    return lambda _directory, name: find(name) is not None
