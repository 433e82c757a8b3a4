"""Restore policies of machines. For each field, the most specific policy that sets it counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from turku.api.fleet.models import Machine
from turku.api.fleet.policies import applicable, first_value, most_specific_first
from turku.api.restores.models import Approvals, RestorePolicy


@dataclass(frozen=True)
class HistoryRules:
    """Rules for the history of a machine.

    They say whether the machine may read its own history, how many operators approve a request, and whether its history
    may go to other machines of the same Auth.
    """

    history_visible: bool = True
    approvals: int = Approvals.ONE
    other_machines: bool = True


BUILT_IN = HistoryRules()
"""The rules without any policy."""


def combine(policies: Iterable[RestorePolicy]) -> HistoryRules:
    """Return the rules that result from these policies, in any order."""
    ordered = most_specific_first(policies)
    return HistoryRules(
        history_visible=first_value(ordered, lambda policy: policy.history_visible, BUILT_IN.history_visible),
        approvals=first_value(ordered, lambda policy: policy.approvals, BUILT_IN.approvals),
        other_machines=first_value(ordered, lambda policy: policy.other_machines, BUILT_IN.other_machines),
    )


def rules_of(machine: Machine) -> HistoryRules:
    """Return the rules of one machine, with one query."""
    return combine(applicable(RestorePolicy.objects.all(), machine))
