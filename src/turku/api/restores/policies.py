"""Restore policies of machines. For each field, the most specific policy that sets it counts."""

from dataclasses import dataclass

from turku.api.fleet.models import Machine
from turku.api.fleet.policies import values_for
from turku.api.restores.models import Approvals, RestorePolicy


@dataclass(frozen=True)
class HistoryRules:
    """Rules for the history of a machine. The defaults count without any policy.

    They say whether the machine may read its own history, how many operators approve a request, and whether its history
    may go to other machines of the same Auth.
    """

    history_visible: bool = True
    approvals: int = Approvals.ONE
    other_machines: bool = True


def rules_of(machine: Machine) -> HistoryRules:
    """Return the rules of one machine, with one query."""
    columns = ("history_visible", "approvals", "other_machines")
    return HistoryRules(**values_for(RestorePolicy.objects.all(), machine, *columns))
