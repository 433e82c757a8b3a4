"""What counts for a machine's history: per field, the most specific policy that says something."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Q

from turku.api.fleet.models import Machine
from turku.api.restores.models import Approvals, RestorePolicy


@dataclass(frozen=True)
class HistoryRules:
    """May the machine have its own history by itself; how many operators approve a request; may what is kept of it go
    onto other machines of the same Auth?"""

    history_visible: bool = True
    approvals: int = Approvals.ONE
    other_machines: bool = True


BUILT_IN = HistoryRules()
"""Where no policy says anything."""


def combine(policies: Iterable[RestorePolicy]) -> HistoryRules:
    """The rules that these policies make together, whatever their order."""
    ordered = sorted(policies, key=lambda policy: (policy.machine_id is None, policy.auth_id is None))
    said = {
        field: next((value for policy in ordered if (value := getattr(policy, field)) is not None), None)
        for field in ("history_visible", "approvals", "other_machines")
    }
    return HistoryRules(**{**vars(BUILT_IN), **{field: value for field, value in said.items() if value is not None}})


def rules_of(machine: Machine) -> HistoryRules:
    """The rules of one machine, asked of the database in one query."""
    for_all = Q(machine=None, auth=None)
    return combine(RestorePolicy.objects.filter(for_all | Q(auth=machine.auth_id) | Q(machine=machine.pk)))
