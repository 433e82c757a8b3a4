"""Secrets: a type that does not print itself, and the generator."""

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits
GENERATED_LENGTH = 30
"""Length of generated secrets and one-time passwords in characters (contract, "A backup session")."""


class Secret:
    """A secret text. ``str`` and ``repr`` give ``***``, and only ``reveal`` gives the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __str__(self) -> str:
        return "***"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and secrets.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)


def generate_secret(length: int = GENERATED_LENGTH) -> Secret:
    """Return a new random secret of letters and digits."""
    return Secret("".join(secrets.choice(_ALPHABET) for _ in range(length)))
