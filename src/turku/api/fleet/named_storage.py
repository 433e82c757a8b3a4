"""Lookup of the storage that an operator names."""

from django.db.models import QuerySet

from turku.api.fleet.models import Storage
from turku.core.log import one_line
from turku.errors import UsageError

_NAMED = 20


def named_storage(text: str) -> Storage:
    """Return the storage of that name. Raises UsageError, which names those that exist."""
    found = None if "\0" in text else Storage.objects.filter(name=text).first()
    if found is None:
        known = list(Storage.objects.values_list("name", flat=True)[: _NAMED + 1])
        listed = ", ".join(map(one_line, known[:_NAMED])) + (", ..." if len(known) > _NAMED else "")
        raise UsageError(f"there is no storage {one_line(text)!r}", hint=f"there is {listed or 'none yet'}")
    return found


def removed_storages() -> QuerySet[Storage]:
    """Return the storages that operators removed, the last one first."""
    return Storage.every.exclude(date_removed=None).order_by("-date_removed", "-pk")


def named_removed_storage(text: str) -> Storage:
    """Return the removed storage of that name. Raises UsageError."""
    found = None if "\0" in text else removed_storages().filter(name=text).first()
    if found is None:
        raise UsageError(f"no storage {one_line(text)!r} was removed", hint="turku-api storage list --removed")
    return found
