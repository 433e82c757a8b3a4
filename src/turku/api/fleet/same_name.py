"""Machines that share one name. Names are for people, and the UUID counts, but people take one for the other."""

from collections.abc import Iterator

from django.db.models import Count, QuerySet
from django.utils import timezone

from turku.api.fleet.models import Machine

NAMED = 5
_NAMES = ("environment_name", "service_name", "unit_name")


def _in_use() -> QuerySet[Machine]:
    return Machine.objects.filter(active=True, published=True).exclude(unit_name="")


def warnings(machine: Machine) -> list[str]:
    """Return a sentence for the machine if others have its name, or nothing."""
    others = _in_use().filter(**{name: getattr(machine, name) for name in _NAMES}).exclude(pk=machine.pk)
    found = list(others.order_by("-date_checked_in")[: NAMED + 1])
    if not found:
        return []
    listed = ", ".join(map(_shown, found[:NAMED])) + (", ..." if len(found) > NAMED else "")
    return [
        f"another machine is called {machine} as well: {listed}. Set unit_name here if both are in use. If this host "
        "takes the other's place, an operator removes that one at the coordinator (turku-api machine remove), or gives "
        "this one its identity and history (turku-api machine re-enrol)"
    ]


def _shown(machine: Machine) -> str:
    seen = machine.date_checked_in
    when = f"{timezone.localtime(seen):%Y-%m-%d %H:%M}" if seen else "never"
    return f"{str(machine.uuid)[:8]} (last seen {when})"


def remarks(limit: int) -> Iterator[str]:
    """Return a sentence about each name that several machines have."""
    shared = _in_use().values(*_NAMES).annotate(machines=Count("pk")).filter(machines__gt=1).order_by(*_NAMES)
    for row in shared[:limit]:
        named = _in_use().filter(**{name: row[name] for name in _NAMES}).order_by("date_registered")
        machines = list(named[:NAMED])
        if machines:
            listed = ", ".join(map(_shown, machines))
            yield f"machine {machines[0]}: {row['machines']} machines have this name: {listed}"
