"""The operator's policies that count for a machine: the floor, and the time after which it is silent."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from django.db.models import Q, QuerySet

from turku.api.fleet.models import Machine, Policy, ScopedPolicy
from turku.policy import snapshot_mode

Scoped = TypeVar("Scoped", bound=ScopedPolicy)


@dataclass(frozen=True)
class Floor:
    """Limits that a machine cannot go below. The defaults count without any policy: no limits but the delay.

    Empty ``allowed_snapshot_modes`` allow any mode. ``quota_bytes`` of None is no quota.
    """

    retention_floor: str = ""
    allowed_snapshot_modes: tuple[str, ...] = ()
    quota_bytes: int | None = None
    delay: timedelta = timedelta(days=7)
    weakening_allowed: bool = True

    def allows(self, mode: str) -> bool:
        return snapshot_mode.is_allowed(mode, self.allowed_snapshot_modes)


def values_for(policies: QuerySet[Scoped], machine: Machine, *columns: str) -> dict[str, Any]:
    """Return the values of those columns that policies set for the machine, with one query.

    For each column, the most specific policy that sets it counts. A column that none sets is absent.
    """
    applicable = policies.filter(Q(machine=None, auth=None) | Q(auth=machine.auth_id) | Q(machine=machine.pk))
    values: dict[str, Any] = {}
    # The most specific one is last, and wins.
    for policy in sorted(applicable, key=lambda row: (row.machine_id is not None, row.auth_id is not None)):
        said = {name: getattr(policy, name) for name in columns}
        values |= {name: value for name, value in said.items() if value not in (None, "", [])}
    return values


def floor_of(machine: Machine) -> Floor:
    """Return the limits of one machine, with one query."""
    columns = ("retention_floor", "allowed_snapshot_modes", "quota_bytes", "delay_hours", "weakening_allowed")
    values = values_for(Policy.objects.all(), machine, *columns)
    if "delay_hours" in values:
        values["delay"] = timedelta(hours=values.pop("delay_hours"))
    if "allowed_snapshot_modes" in values:
        values["allowed_snapshot_modes"] = tuple(values["allowed_snapshot_modes"])
    return Floor(**values)


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
