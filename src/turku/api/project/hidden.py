"""Secrets that Django must have as text."""

from __future__ import annotations

from turku.core.secret import Secret


class HiddenText(str):
    """A text that does not show itself where settings are listed (`turku-api diffsettings`, error pages)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def hidden(secret: Secret) -> HiddenText:
    """The secret's text for Django's settings."""
    return HiddenText(secret.reveal())
