"""Search for machines."""

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
    """Return a condition that finds machines by every word: in a name or comment, or as the start of the UUID.

    ``path`` leads from the searched rows to their machine (``machine__``).
    """
    return Q(*(_matching_machines(word, path) for word in words))


def _matching_machines(word: str, path: str) -> Q:
    uuid = uuid_of(word)
    if uuid is not None:
        return Q(**{f"{path}uuid": uuid})
    return Q(**{f"{path}search_text__contains": word.lower()}) | uuid_begins(f"{path}uuid", word)


def few_machines(word: str, column: str) -> list[Any] | None:
    """Return that column of the machines that match the word, or None if there are more than FEW_LIMIT."""
    found = Machine.objects.filter(matching_machines([word])).order_by().values_list(column, flat=True)
    values = list(found[: FEW_LIMIT + 1])
    return values if len(values) <= FEW_LIMIT else None


def uuid_of(word: str) -> UUID | None:
    """Return the UUID that the word spells, or None."""
    digits = _digits(word)
    return UUID(digits) if len(digits) == _WHOLE_UUID_DIGITS else None


def uuid_begins(field: str, word: str) -> Q:
    """Return a condition that the UUID in the field begins like the word.

    It matches nothing if the word is not the start of a UUID.
    """
    digits = _digits(word)
    if len(digits) < _SHORTEST_UUID_DIGITS:
        return Q(pk__in=())
    least, most = (UUID(digits.ljust(_WHOLE_UUID_DIGITS, end)) for end in "0f")
    return Q(**{f"{field}__gte": least, f"{field}__lte": most})


def _digits(word: str) -> str:
    digits = word.replace("-", "").lower()
    return digits if re.fullmatch(rf"[0-9a-f]{{1,{_WHOLE_UUID_DIGITS}}}", digits) else ""
