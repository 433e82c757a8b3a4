"""The operator's floor that counts for a machine: per field, the most specific policy that says something."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from django.db.models import Q, QuerySet

from turku.api.fleet.models import Machine, Policy, ScopedPolicy
from turku.policy import snapshot_mode

Scoped = TypeVar("Scoped", bound=ScopedPolicy)
Value = TypeVar("Value")


@dataclass(frozen=True)
class Floor:
    """Limits that a machine cannot go below.

    Empty ``allowed_snapshot_modes`` allow any mode. ``quota_bytes`` of None is no quota.
    """

    retention_floor: str = ""
    allowed_snapshot_modes: tuple[str, ...] = ()
    quota_bytes: int | None = None
    delay: timedelta = timedelta(days=7)
    weakening_allowed: bool = True

    def allows(self, mode: str) -> bool:
        return snapshot_mode.is_allowed(mode, self.allowed_snapshot_modes)


BUILT_IN = Floor()
"""The values without any policy: no limits but the delay."""


def applicable(policies: QuerySet[Scoped], machine: Machine) -> QuerySet[Scoped]:
    """Return those of the policies that apply to the machine."""
    for_all = Q(machine=None, auth=None)
    return policies.filter(for_all | Q(auth=machine.auth_id) | Q(machine=machine.pk))


def most_specific_first(policies: Iterable[Scoped]) -> list[Scoped]:
    """Return the policies of one machine, the most specific first."""
    return sorted(policies, key=lambda policy: (policy.machine_id is None, policy.auth_id is None))


def first_value(policies: Iterable[Scoped], column: Callable[[Scoped], Value | None], otherwise: Value) -> Value:
    """Return the first value that is set, in the order of the policies."""
    said = (column(policy) for policy in policies)
    return next((value for value in said if value is not None), otherwise)


def combine(policies: Iterable[Policy]) -> Floor:
    """Return the limits that result from these policies, in any order."""
    ordered = most_specific_first(policies)
    return Floor(
        retention_floor=first_value(ordered, lambda policy: policy.retention_floor or None, BUILT_IN.retention_floor),
        allowed_snapshot_modes=tuple(
            first_value(
                ordered, lambda policy: policy.allowed_snapshot_modes or None, list(BUILT_IN.allowed_snapshot_modes)
            )
        ),
        quota_bytes=first_value(ordered, lambda policy: policy.quota_bytes, BUILT_IN.quota_bytes),
        delay=first_value(
            ordered,
            lambda policy: None if policy.delay_hours is None else timedelta(hours=policy.delay_hours),
            BUILT_IN.delay,
        ),
        weakening_allowed=first_value(ordered, lambda policy: policy.weakening_allowed, BUILT_IN.weakening_allowed),
    )


def floor_of(machine: Machine) -> Floor:
    """Return the limits of one machine, with one query."""
    return combine(applicable(Policy.objects.all(), machine))
