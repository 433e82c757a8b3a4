"""Safe output: no printed name can control a terminal, neither as text nor as JSON.

``one_line`` (core/log.py) escapes a single value, with its line breaks. The streams of this module are the last guard:
they escape everything that is printed.
"""

import io
import logging
import re
import sys
from typing import Any, TextIO, cast

from turku.core.log import STANDARD_ERROR, is_journal, one_line, with_priority

_BETWEEN_LAYOUT = re.compile(r"[^\n\t]+")
_SPECIAL = re.compile(r"[^\n\t -~]")
"""Characters that are neither layout nor printable ASCII."""


def printable(text: str) -> str:
    """Return the text with its line breaks and tabs, and with all other characters escaped as by ``one_line``."""
    return text if text.isprintable() else _BETWEEN_LAYOUT.sub(lambda found: one_line(found[0]), text)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return the value as JSON. Characters that cannot be printed are escaped, and come back when the JSON is read."""
    import msgspec

    try:
        content = msgspec.json.encode(value)
        if indent is not None:
            content = msgspec.json.format(content, indent=indent)
        text = content.decode()
    except UnicodeEncodeError:
        import json

        # A name that is not valid UTF-8 contains halves of surrogate pairs, which msgspec does not write.
        text = json.dumps(msgspec.to_builtins(value), indent=indent)
    return escaped_json(text, is_ascii=encoding_of(sys.stdout) != "utf-8")


def encoding_of(stream: TextIO | None) -> str:
    """Return the encoding of a stream, ``utf-8`` for each of its spellings."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("utf8", "utf-8")


def escaped_json(text: str, *, is_ascii: bool = False) -> str:
    r"""Return JSON in which ``\u`` escapes stand for what cannot be printed, and with ``is_ascii`` for all but ASCII.

    Outside its texts, JSON has no such characters except line breaks.
    """
    if text.isprintable() and (text.isascii() or not is_ascii):
        return text
    return _SPECIAL.sub(lambda found: _escape(found[0], is_ascii=is_ascii), text)


def _escape(character: str, *, is_ascii: bool) -> str:
    if character.isprintable() and not is_ascii:
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


class GuardedStream:
    """A text stream that escapes what a terminal must not get, and what its encoding lacks.

    In the journal's stream, no text sets its own priority.
    """

    def __init__(self, stream: TextIO, *, is_journal: bool = False) -> None:
        self.unguarded = stream
        self._is_journal = is_journal
        self._begins_line = True

    def write(self, text: str) -> int:
        encoding = encoding_of(self.unguarded)
        shown = printable(text).encode(encoding, "backslashreplace").decode(encoding)
        self.unguarded.write(self._with_priorities(shown) if self._is_journal else shown)
        return len(text)

    def _with_priorities(self, text: str) -> str:
        begins, shown = self._begins_line, []
        for line in text.splitlines(keepends=True):
            content = line.removesuffix("\n")
            shown.append((with_priority(content, logging.INFO) if begins else content) + line[len(content) :])
            begins = line != content
        self._begins_line = begins
        return "".join(shown)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


def guard_streams() -> None:
    """Guard standard output and standard error from here on."""
    sys.stdout, sys.stderr = (_guarded(stream, number) for number, stream in ((1, sys.stdout), (2, sys.stderr)))


def say_error(line: str, *, level: int = logging.ERROR) -> None:
    """Print a line on standard error. The journal gets it with the priority of the level, one of logging's."""
    stream = sys.stderr
    if is_journal(STANDARD_ERROR):
        stream, line = unguarded(stream), with_priority(printable(line), level)
    print(line, file=stream, flush=True)


def _guarded(stream: TextIO, descriptor: int) -> TextIO:
    # A program may be started without one.
    is_plain = stream is not None and not isinstance(stream, GuardedStream)
    if isinstance(stream, io.TextIOWrapper):
        # Tables and bars bypass the guard, and may also contain characters that the encoding lacks.
        stream.reconfigure(errors="backslashreplace")
    return cast(TextIO, GuardedStream(stream, is_journal=is_journal(descriptor))) if is_plain else stream


def unguarded(stream: TextIO) -> TextIO:
    """Return the stream behind the guard, for tables and bars that use control sequences around escaped text."""
    return stream.unguarded if isinstance(stream, GuardedStream) else stream
