"""What a word of a search finds in the audit log."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from django.db.models import Q

from turku.api.fleet.search import few_machines


def matching_entries(words: Sequence[str]) -> Q:
    """The entries with exactly each word as action, name, key, actor or address, or about or by a machine that the word
    finds, where those are few."""
    return Q(*(_matching_entries(word) for word in words))


def _matching_entries(word: str) -> Q:
    names = [word, *(str(uuid) for uuid in few_machines(word, "uuid") or ())]
    found = Q(subject_key__in=names) | Q(actor__in=names) | Q(subject=word) | Q(action=word)
    try:
        return found | Q(address=str(ipaddress.ip_address(word)))
    except ValueError:
        return found
