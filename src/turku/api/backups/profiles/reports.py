"""The report of a machine on the profiles that it was offered."""

from collections import Counter
from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType, to_builtins

from turku.api.backups.profiles.models import ProfilesOfMachine
from turku.api.fleet.models import Machine
from turku.core.log import one_line
from turku.policy.declaration.profiles import REASON_LENGTH
from turku.protocol.messages import ProfileReport

_TEXT_LENGTH = 200


def store(machine: Machine, report: ProfileReport | UnsetType, *, now: datetime) -> None:
    """Keep the report, with one query where nothing changed. A machine without one accepts no profiles."""
    known = ProfilesOfMachine.objects.filter(machine=machine).first()
    if report is UNSET:
        if known is not None:
            known.delete()
        return
    columns = _columns(report)
    if known is None:
        ProfilesOfMachine.objects.create(machine=machine, date=now, **columns)
        return
    if any(getattr(known, name) != value for name, value in columns.items()):
        for name, value in columns.items():
            setattr(known, name, value)
        known.date = now
        known.save()


def _columns(report: ProfileReport) -> dict[str, Any]:
    refused = [
        {name: one_line(text)[:REASON_LENGTH] for name, text in to_builtins(each).items()} for each in report.refused
    ]
    taken = {one_line(name)[:_TEXT_LENGTH]: one_line(profile)[:_TEXT_LENGTH] for name, profile in report.taken.items()}
    return {
        "accepts": [one_line(path) for path in report.accepts],
        "digest": one_line(report.digest),
        "taken": taken,
        "refused": refused,
        "refused_count": report.refused_count,
        "taken_profiles": dict(Counter(taken.values())),
        "refused_profiles": dict(Counter(each["profile"] for each in refused)),
    }


def of_machine(machine: Machine) -> dict[str, Any] | None:
    """Return the report of a machine, or None for one that accepts no profiles."""
    found = ProfilesOfMachine.objects.filter(machine=machine).first()
    if found is None:
        return None
    return {name: getattr(found, name) for name in ("accepts", "taken", "refused", "refused_count")}


def text_of(machine: Machine) -> str:
    """Return the report of a machine as lines for people. It is empty for one that accepts no profiles."""
    found = of_machine(machine)
    if found is None:
        return ""
    refused = [f"refused: {each['source']} of {each['profile']}: {each['reason']}" for each in found["refused"]]
    return "\n".join([f"accepted below {', '.join(found['accepts'])}", *refused])
