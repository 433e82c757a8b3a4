"""What a word of a search finds in the audit log."""

from __future__ import annotations

import ipaddress

from django.db.models import Q

from turku.api.fleet.models import Machine
from turku.api.fleet.search import matching_machines

_FEW = 1000


def matching_entries(word: str) -> Q:
    """The entries with exactly this as their action, name, key, actor or address, and those about or by machines that
    the word finds, where they are few."""
    names = [word]
    machines = Machine.objects.filter(matching_machines(word)).order_by().values_list("uuid", flat=True)
    uuids = [str(uuid) for uuid in machines[: _FEW + 1]]
    if len(uuids) <= _FEW:
        names += uuids
    found = Q(subject_key__in=names) | Q(actor__in=names) | Q(subject=word) | Q(action=word)
    try:
        return found | Q(address=str(ipaddress.ip_address(word)))
    except ValueError:
        return found
