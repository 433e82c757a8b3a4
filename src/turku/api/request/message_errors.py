"""Errors of a message, collected so that one answer names all of them."""

from collections.abc import Callable
from typing import TypeVar

from turku.errors import InvalidValue, MalformedMessage

Value = TypeVar("Value")
Result = TypeVar("Result")

_SHOWN = 20
_SHOWN_LENGTH = 300


class MessageErrors:
    """Collects errors, each with the path of its field (``machine.sources.etc.frequency``)."""

    def __init__(self) -> None:
        self._sentences: list[str] = []

    def add(self, field: str, sentence: str) -> None:
        self._sentences.append(f"{_shortened(field)}: {_shortened(sentence)}")

    def check(self, field: str, rule: Callable[[Value], Result], value: Value) -> Result | None:
        """Return the result of ``rule`` for the value, or None and record an error if it raises InvalidValue."""
        try:
            return rule(value)
        except InvalidValue as error:
            self.add(field, error.sentence)
            return None

    @property
    def sentence(self) -> str:
        """All recorded errors, or an empty text."""
        shown = "; ".join(self._sentences[:_SHOWN])
        more = len(self._sentences) - _SHOWN
        return f"{shown}; and {more} more" if more > 0 else shown

    def raise_if_any(self) -> None:
        """Raise MalformedMessage with all recorded errors, if there are any."""
        if self._sentences:
            raise MalformedMessage(self.sentence)


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."


def checked(field: str, rule: Callable[[Value], Result], value: Value) -> Result:
    """Return the result of ``rule`` for the value. Raises MalformedMessage with the name of the field."""
    try:
        return rule(value)
    except InvalidValue as error:
        raise MalformedMessage(f"{field}: {_shortened(error.message)}", hint=error.hint) from None
