"""Names as words that can be pasted into a shell, whatever bytes they contain."""

import sys
from collections.abc import Iterator

from turku.core.cli.output import encoding_of

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "'": "\\'", "\\": "\\\\"}


def word(name: bytes, *, is_utf8: bool | None = None) -> str:
    r"""Return the name as one word of a shell: as it is, in ``'...'``, or with escapes in ``$'...'``.

    The last form is that of bash, zsh and ksh. It is used for what cannot be printed: invalid UTF-8, control
    characters, and all but ASCII where ``is_utf8`` is False. By default ``is_utf8`` follows standard output.
    """
    if is_utf8 is None:
        is_utf8 = encoding_of(sys.stdout) == "utf-8"
    text = name.decode("utf-8", "surrogateescape")
    if not all(_is_printed(character, is_utf8=is_utf8) for character in text):
        return "$'" + "".join(_escaped(text, is_utf8=is_utf8)) + "'"
    if text and all(character in _PLAIN or not character.isascii() for character in text):
        return text
    return "'" + text.replace("'", "'\\''") + "'"


def path_word(path: bytes, *, is_utf8: bool | None = None) -> str:
    """Return a relative path as one word of a shell. No command takes it for an option."""
    return word(b"./" + path if path.startswith(b"-") else path, is_utf8=is_utf8)


def _is_printed(character: str, *, is_utf8: bool) -> bool:
    # Spaces of other scripts look as if they ended a word, and do not.
    return character.isprintable() and (character.isascii() or (is_utf8 and not character.isspace()))


def _escaped(text: str, *, is_utf8: bool) -> Iterator[str]:
    for character in text:
        if character in _ESCAPES:
            yield _ESCAPES[character]
        elif _is_printed(character, is_utf8=is_utf8):
            yield character
        else:
            # Three digits each, so that no digit that follows becomes part of the escape.
            yield "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
