"""How long machines may be away: the most specific policy that says something, for many machines in one condition."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from django.db.models import Q

from turku.api.fleet.models import Policy

MAY_BE_AWAY = timedelta(hours=1)
"""Where no policy says anything: a server, which asks every five minutes."""


def matching(condition: Callable[[timedelta], Q], path: str = "") -> Q:
    """Return that a machine's rows fulfil the condition for the time that this machine may be away.

    ``path`` leads to the machine (``machine__``). One query, which reads the few different values.
    """
    said = Policy.objects.exclude(away_hours=None).order_by()
    by_machine, by_auth, by_all = (
        sorted({hours for hours in said.filter(scope).values_list("away_hours", flat=True) if hours is not None})
        for scope in (~Q(machine=None), ~Q(auth=None), Q(machine=None, auth=None))
    )
    of_machine, of_auth = f"{path}policy__away_hours", f"{path}auth__policy__away_hours"
    found = Q(pk__in=())
    others = Q()
    for field, values in ((of_machine, by_machine), (of_auth, by_auth)):
        for hours in values:
            found |= others & Q(**{field: hours}) & condition(timedelta(hours=hours))
        if values:
            others &= Q(**{field: None})
    otherwise = timedelta(hours=by_all[0]) if by_all else MAY_BE_AWAY
    return found | (others & condition(otherwise))
