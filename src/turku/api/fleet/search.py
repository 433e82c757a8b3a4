"""What a word of a search finds among machines."""

from __future__ import annotations

import re
from uuid import UUID

from django.db.models import Q

_WHOLE_UUID_DIGITS = 32
_SHORTEST_UUID_DIGITS = 4


def matching_machines(word: str) -> Q:
    """The machines with the word in a name or comment, or at the beginning of their UUID."""
    uuid = uuid_of(word)
    if uuid is not None:
        return Q(uuid=uuid)
    return Q(search_text__contains=word.lower()) | uuid_begins("uuid", word)


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
