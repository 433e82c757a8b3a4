"""The outcome of a profile on its machines, by their own reports."""

from dataclasses import dataclass
from typing import Any

from turku.api.backups.profiles.models import MachineProfile, ProfilesOfMachine
from turku.api.backups.profiles.preview import machines_of

NAMED = 100
"""Refusals that an outcome names."""


@dataclass(frozen=True)
class ReportedRefusal:
    """A source that a machine refused, with its reason."""

    machine: str
    uuid: str
    source: str
    reason: str


@dataclass(frozen=True)
class ProfileOutcome:
    """The numbers of machines that are offered a profile, take one of its sources, refuse one, or accept none."""

    machines: int
    taking: int
    refusing: int
    not_accepting: int
    refusals: tuple[ReportedRefusal, ...]


def outcome_of(profile: MachineProfile) -> ProfileOutcome:
    """Return what machines made of the profile."""
    group = machines_of(profile)
    reports = ProfilesOfMachine.objects.filter(machine__in=group.order_by().values("pk"))
    machines, accepting = group.count(), reports.count()
    refusing = reports.filter(refused_profiles__has_key=profile.name)
    refusals = [
        _refusal(report, each)
        for report in refusing.select_related("machine").order_by("machine_id")[:NAMED]
        for each in report.refused
        if each.get("profile") == profile.name
    ]
    taking = reports.filter(taken_profiles__has_key=profile.name).count()
    return ProfileOutcome(machines, taking, refusing.count(), machines - accepting, tuple(refusals[:NAMED]))


def _refusal(report: ProfilesOfMachine, refused: dict[str, Any]) -> ReportedRefusal:
    machine = report.machine
    return ReportedRefusal(str(machine), str(machine.uuid), str(refused.get("source")), str(refused.get("reason")))
