"""What a person types to find a file."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable

from turku.errors import UsageError

Matcher = Callable[[bytes, bytes], bool]
"""Whether the name (second) in the directory (first) is meant."""
_LIMIT_BYTES = 1000
_WILD = re.compile(rb"[*?\[]")


def matcher(pattern: bytes, *, ignore_case: bool = False) -> Matcher:
    """What the pattern means: a part of a name; with ``*``, ``?`` or ``[...]`` in it, a whole name.

    With a slash in it the path is compared instead of the name; ``*`` stands for slashes too. Case is ignored of ASCII
    letters only: names are bytes. Raises UsageError for an empty pattern, or a very long one.
    """
    if not pattern or len(pattern) > _LIMIT_BYTES:
        raise UsageError(
            f"a pattern has 1 to {_LIMIT_BYTES} bytes", hint="such as 'passwd', '*.odt' or 'home/*/invoice*'"
        )
    flags = re.IGNORECASE if ignore_case else 0
    if _WILD.search(pattern):
        # Latin-1 is bytes by another name.
        find = re.compile(fnmatch.translate(pattern.decode("latin-1")).encode("latin-1"), flags).match
    else:
        find = re.compile(re.escape(pattern), flags).search
    if b"/" in pattern:
        return lambda directory, name: find(directory + b"/" + name if directory else name) is not None
    return lambda _directory, name: find(name) is not None
