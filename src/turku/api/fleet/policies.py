"""The operator's floor that counts for a machine: per field, the most specific policy that says something."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from django.db.models import Q

from turku.api.fleet.models import Machine, Policy

Value = TypeVar("Value")


@dataclass(frozen=True)
class Floor:
    """What a machine cannot go below. ``allowed_snapshot_modes``: empty for any; ``quota_bytes``: None for no limit."""

    retention_floor: str = ""
    allowed_snapshot_modes: tuple[str, ...] = ()
    quota_bytes: int | None = None
    delay: timedelta = timedelta(days=7)
    weakening_allowed: bool = True

    def allows(self, snapshot_mode: str) -> bool:
        return not self.allowed_snapshot_modes or snapshot_mode in self.allowed_snapshot_modes


BUILT_IN = Floor()
"""Where no policy says anything: no floor but the delay."""


def _first(policies: Iterable[Policy], column: Callable[[Policy], Value | None], otherwise: Value) -> Value:
    said = (column(policy) for policy in policies)
    return next((value for value in said if value is not None), otherwise)


def combine(policies: Iterable[Policy]) -> Floor:
    """The floor that these policies make together, whatever their order."""
    ordered = sorted(policies, key=lambda policy: (policy.machine_id is None, policy.auth_id is None))
    return Floor(
        retention_floor=_first(ordered, lambda policy: policy.retention_floor or None, BUILT_IN.retention_floor),
        allowed_snapshot_modes=tuple(
            _first(ordered, lambda policy: policy.allowed_snapshot_modes or None, list(BUILT_IN.allowed_snapshot_modes))
        ),
        quota_bytes=_first(ordered, lambda policy: policy.quota_bytes, BUILT_IN.quota_bytes),
        delay=_first(
            ordered,
            lambda policy: None if policy.delay_hours is None else timedelta(hours=policy.delay_hours),
            BUILT_IN.delay,
        ),
        weakening_allowed=_first(ordered, lambda policy: policy.weakening_allowed, BUILT_IN.weakening_allowed),
    )


def floor_of(machine: Machine) -> Floor:
    """The floor of one machine, asked of the database in one query."""
    for_all = Q(machine=None, auth=None)
    return combine(Policy.objects.filter(for_all | Q(auth=machine.auth_id) | Q(machine=machine.pk)))
