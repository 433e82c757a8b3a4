"""Characters of text from the network: those that are refused, and the way to show text in a message."""

import unicodedata

from turku.errors import InvalidValue

_SHOWN_LENGTH = 80
_BIDIRECTIONAL_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that make a terminal or a page show text in another order."""


def shown(text: str) -> str:
    """Return the text in quotes, escaped and cut to a length that fits a sentence."""
    return repr(text) if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]!r}..."


def code_point(character: str) -> str:
    """Return the code point, such as ``U+002F`` for a slash."""
    return f"U+{ord(character):04X}"


def is_line_break_or_control(character: str) -> bool:
    """Return True for control characters, line and paragraph separators, and halves of surrogate pairs."""
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def is_misleading(character: str) -> bool:
    """Return True for characters that cannot be shown on one line, and for controls of the writing direction."""
    return is_line_break_or_control(character) or character in _BIDIRECTIONAL_CONTROLS


def size_bytes(text: str) -> int:
    """Return the length in UTF-8. Raises InvalidValue for halves of surrogate pairs."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise InvalidValue(f"{shown(text)} is not valid Unicode: it has half of a surrogate pair") from None
