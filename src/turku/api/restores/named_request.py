"""Lookup of the restore request that an operator names."""

from __future__ import annotations

from turku.api.fleet.search import uuid_begins, uuid_of
from turku.api.restores.models import RestoreRequest
from turku.errors import UsageError


def named_request(text: str) -> RestoreRequest:
    """Return the one request whose id is, or begins with, the text.

    Raises UsageError for none and for several.
    """
    rows = RestoreRequest.objects.select_related("source__machine", "target")
    uuid = uuid_of(text)
    found = list(rows.filter(pk=uuid) if uuid else rows.filter(uuid_begins("id", text)).order_by()[:2])
    if len(found) != 1:
        problem = f"more than one restore request begins with {text!r}" if found else f"no restore request is {text!r}"
        raise UsageError(problem, hint="`turku-api restore list --all` shows them. Use at least four digits")
    return found[0]
