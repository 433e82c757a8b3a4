"""The time after which machines count as silent, by policy, as one database condition for many machines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from django.db.models import Q

from turku.api.fleet.models import Policy

DEFAULT_SILENT_AFTER = timedelta(hours=1)
"""The limit without any policy. It suits a server, which checks in every five minutes."""


def silence_condition(condition: Callable[[timedelta], Q], path: str = "") -> Q:
    """Return that a machine's rows fulfil the condition for the time that this machine may be away.

    ``path`` leads to the machine (``machine__``). One query, which reads the few different values.
    """
    column = "silent_after_hours"
    policies = Policy.objects.exclude(silent_after_hours=None).order_by()
    by_machine, by_auth, by_all = (
        sorted({hours for hours in policies.filter(scope).values_list(column, flat=True) if hours is not None})
        for scope in (~Q(machine=None), ~Q(auth=None), Q(machine=None, auth=None))
    )
    of_machine, of_auth = f"{path}policy__silent_after_hours", f"{path}auth__policy__silent_after_hours"
    found = Q(pk__in=())
    others = Q()
    for field, values in ((of_machine, by_machine), (of_auth, by_auth)):
        for hours in values:
            found |= others & Q(**{field: hours}) & condition(timedelta(hours=hours))
        if values:
            others &= Q(**{field: None})
    otherwise = timedelta(hours=by_all[0]) if by_all else DEFAULT_SILENT_AFTER
    return found | (others & condition(otherwise))
