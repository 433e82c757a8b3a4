"""What counts for a machine's history: per field, the most specific policy that says something."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from turku.api.fleet.models import Machine
from turku.api.fleet.policies import applicable, first_value, most_specific_first
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
    ordered = most_specific_first(policies)
    return HistoryRules(
        history_visible=first_value(ordered, lambda policy: policy.history_visible, BUILT_IN.history_visible),
        approvals=first_value(ordered, lambda policy: policy.approvals, BUILT_IN.approvals),
        other_machines=first_value(ordered, lambda policy: policy.other_machines, BUILT_IN.other_machines),
    )


def rules_of(machine: Machine) -> HistoryRules:
    """The rules of one machine, asked of the database in one query."""
    return combine(applicable(RestorePolicy.objects.all(), machine))
