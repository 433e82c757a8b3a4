"""The source option ``incomplete``: what becomes of a run in which single files could not be read."""

from __future__ import annotations

from turku.errors import InvalidValue

OPTION = "incomplete"
KEEP, FAIL = "keep", "fail"
"""A snapshot with warnings, or no snapshot."""


def parse(choice: object) -> str:
    """Return the choice. Raises InvalidValue for any other value than ``keep`` and ``fail``."""
    if choice not in (KEEP, FAIL):
        raise InvalidValue(f"must be {KEEP} or {FAIL}")
    return str(choice)
