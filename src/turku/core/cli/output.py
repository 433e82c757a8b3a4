"""What programs print: text that steers no terminal, and JSON that does not either, whatever names are in it.

``one_line`` (core/log.py) is for a single value: it escapes line breaks too. The streams here are the last guard, for
all that anybody prints.
"""

from __future__ import annotations

import io
import re
import sys
from typing import Any, TextIO, cast

from turku.core.log import one_line

_LAYOUT = ("\n", "\t")
_SPECIAL = re.compile(r"[^\n\t -~]")
"""What is no layout, and nothing that ASCII prints."""


def printable(text: str) -> str:
    """The text, its line breaks and tabs as they are and all other characters as ``one_line`` has them."""
    if text.isprintable():
        return text
    return "".join(part if part in _LAYOUT else one_line(part) for part in _parts(text))


def _parts(text: str) -> list[str]:
    parts = [""]
    for character in text:
        if character in _LAYOUT:
            parts += [character, ""]
        else:
            parts[-1] += character
    return parts


def json_text(value: Any, *, indent: int | None = None) -> str:
    """The value as JSON for a terminal or pipe: what cannot be printed is escaped, and comes back when it is read."""
    import msgspec

    try:
        content = msgspec.json.encode(value)
        if indent is not None:
            content = msgspec.json.format(content, indent=indent)
        text = content.decode()
    except UnicodeEncodeError:
        import json

        # A name that is no UTF-8 has halves of surrogate pairs in it, which msgspec does not write.
        text = json.dumps(msgspec.to_builtins(value), indent=indent)
    return escaped_json(text, is_ascii=encoding_of(sys.stdout) != "utf-8")


def encoding_of(stream: TextIO | None) -> str:
    """Return the encoding of a stream, ``utf-8`` for each of its spellings."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("utf8", "utf-8")


def escaped_json(text: str, *, is_ascii: bool = False) -> str:
    r"""JSON with what cannot be printed as ``\u`` escapes, or with all that is not ASCII.

    Outside of its texts, JSON has no such character but line breaks.
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
    """A stream of text that a terminal may show, in characters that its encoding has."""

    def __init__(self, stream: TextIO) -> None:
        self.unguarded = stream

    def write(self, text: str) -> int:
        encoding = encoding_of(self.unguarded)
        self.unguarded.write(printable(text).encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


def guard_streams() -> None:
    """Let standard output and standard error be guarded from here on."""
    sys.stdout, sys.stderr = (_guarded(stream) for stream in (sys.stdout, sys.stderr))


def _guarded(stream: TextIO) -> TextIO:
    # A program may be started without one.
    is_plain = stream is not None and not isinstance(stream, GuardedStream)
    if isinstance(stream, io.TextIOWrapper):
        # What draws past the guard meets characters that the terminal does not have as well.
        stream.reconfigure(errors="backslashreplace")
    return cast(TextIO, GuardedStream(stream)) if is_plain else stream


def unguarded(stream: TextIO) -> TextIO:
    """The stream itself, for what draws tables and bars with a terminal's own sequences, from escaped text."""
    return stream.unguarded if isinstance(stream, GuardedStream) else stream
