"""Lookup of the machine, or the removed machine, that an operator names."""

from django.db.models import Case, F, Q, QuerySet, Value, When
from django.db.models.functions import Concat

from turku.api.fleet.models import Machine
from turku.api.fleet.search import uuid_begins, uuid_of
from turku.core.log import one_line
from turku.errors import UsageError
from turku.policy.machine_choice import chosen

_CANDIDATES = 2000
_NAMED = 10
_HINT = "use the name that the admin site shows, a unique end of that name, or the beginning of the UUID"


def named_machine(text: str) -> Machine:
    """Return the one machine with this UUID or name, or whose UUID begins or whose name ends like this.

    Raises UsageError for none and for several, which are named.
    """
    shown = one_line(text)
    rows = {str(row.uuid): row for row in _candidates(text)}
    found = chosen(text, {uuid: (str(row),) for uuid, row in rows.items()})
    if not found:
        raise UsageError(f"there is no machine {shown!r}", hint=_HINT)
    if len(found) > 1:
        named = ", ".join(f"{rows[uuid]} ({uuid})" for uuid in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise UsageError(f"more than one machine is called {shown!r}: {one_line(named)}{more}", hint=_HINT)
    return rows[found[0]]


def removed_machines() -> QuerySet[Machine]:
    """Return the machines that operators removed, the last one first."""
    return Machine.every.exclude(date_removed=None).order_by("-date_removed", "-pk")


def named_removed_machine(text: str) -> Machine:
    """Return the one removed machine that the text names. Raises UsageError for none and for several."""
    shown = one_line(text)
    rows = {str(row.uuid): row for row in removed_machines()}
    found = chosen(text, {uuid: (str(row),) for uuid, row in rows.items()})
    if len(found) != 1:
        problem = f"more than one removed machine is called {shown!r}" if found else f"no machine {shown!r} was removed"
        raise UsageError(problem, hint="turku-api machine list --removed shows them; name one by its UUID")
    return rows[found[0]]


def _candidates(text: str) -> list[Machine]:
    """Return the machines that the text may name. Exact matches exclude all others."""
    if "\0" in text:
        return []
    part = {
        name: Case(When(Q(**{name: ""}), then=Value("")), default=Concat(F(name), Value("-")))
        for name in ("environment_name", "service_name")
    }
    rows = Machine.objects.annotate(shown=Concat(*part.values(), F("unit_name"))).order_by("pk")
    # A machine without a unit ends with the dash before it.
    exactly = Q(shown=text) | Q(shown=f"{text}-", unit_name="") | Q(uuid=uuid_of(text))
    ending = Q(shown__endswith=text) | Q(shown__endswith=f"{text}-", unit_name="") | uuid_begins("uuid", text)
    return list(rows.filter(exactly)[:_CANDIDATES]) or list(rows.filter(ending)[:_CANDIDATES])
