"""The machine that an operator means."""

from __future__ import annotations

from django.db.models import Q

from turku.api.fleet.models import Machine
from turku.errors import PolicyError, UsageError
from turku.policy import names

MACHINE_HELP = "the machine's UUID or unit name"


def named_machine(text: str) -> Machine:
    """The one machine with this UUID or unit name. Raises UsageError for none and for several."""
    named = Q(unit_name=text)
    try:
        named |= Q(uuid=names.machine_uuid(text))
    except PolicyError:
        pass
    found = list(Machine.objects.filter(named)[:2])
    if len(found) != 1:
        problem = f"more than one machine is called {text!r}" if found else f"there is no machine {text!r}"
        raise UsageError(problem, hint="name it by its unit name or its UUID, as its page in the admin site shows them")
    return found[0]
