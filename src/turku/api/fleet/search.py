"""What a word of a search finds among machines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import Q

from turku.api.fleet.models import Machine

_WHOLE_UUID_DIGITS = 32
_SHORTEST_UUID_DIGITS = 4


FEW_LIMIT = 2000
"""Up to as many keys are given to the database as they are: it then knows how few they are."""


def matching_machines(words: Sequence[str], path: str = "") -> Q:
    """The machines with each word in a name or comment, or at the beginning of their UUID; for rows that have their
    machine at ``path`` (``machine__``)."""
    return Q(*(_matching_machines(word, path) for word in words))


def _matching_machines(word: str, path: str) -> Q:
    uuid = uuid_of(word)
    if uuid is not None:
        return Q(**{f"{path}uuid": uuid})
    return Q(**{f"{path}search_text__contains": word.lower()}) | uuid_begins(f"{path}uuid", word)


def few_machines(word: str, column: str) -> list[Any] | None:
    """That column of the machines that the word finds; None where they are many."""
    found = Machine.objects.filter(matching_machines([word])).order_by().values_list(column, flat=True)
    values = list(found[: FEW_LIMIT + 1])
    return values if len(values) <= FEW_LIMIT else None


def uuid_of(word: str) -> UUID | None:
    """The UUID that the word is, or None."""
    digits = _digits(word)
    return UUID(digits) if len(digits) == _WHOLE_UUID_DIGITS else None


def uuid_begins(field: str, word: str) -> Q:
    """That the UUID in the field begins like the word; nothing where the word is not the beginning of one."""
    digits = _digits(word)
    if len(digits) < _SHORTEST_UUID_DIGITS:
        return Q(pk__in=())
    least, most = (UUID(digits.ljust(_WHOLE_UUID_DIGITS, end)) for end in "0f")
    return Q(**{f"{field}__gte": least, f"{field}__lte": most})


def _digits(word: str) -> str:
    digits = word.replace("-", "").lower()
    return digits if re.fullmatch(rf"[0-9a-f]{{1,{_WHOLE_UUID_DIGITS}}}", digits) else ""
