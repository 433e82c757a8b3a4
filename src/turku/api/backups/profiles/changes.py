"""Changes of profiles by an operator, each with its entry of the audit log."""

from datetime import datetime
from typing import Any

import msgspec
from django.db import transaction

from turku.api.audit import log
from turku.api.audit.log import Actor
from turku.api.backups.profiles import document, offers
from turku.api.backups.profiles.models import MachineProfile
from turku.api.backups.profiles.preview import ProfilePreview


def save(profile: MachineProfile, effect: ProfilePreview, *, actor: Actor, now: datetime) -> None:
    """Save the profile. Machines are offered it at their next checkin."""
    old = MachineProfile.objects.select_related("auth").filter(pk=profile.pk).first()
    before = {} if old is None else _values(old)
    after = _values(profile)
    changed = [name for name in after if before.get(name) != after[name]]
    weakens = effect.machines_leaving > 0 or any(each.weakens for each in effect.sources)
    entry = log.NewEntry(
        "machineprofile.added" if old is None else "machineprofile.changed",
        profile,
        old={name: before[name] for name in changed if name in before},
        new={name: after[name] for name in changed},
        weakens=weakens,
    )
    profile.date_changed = now
    with transaction.atomic():
        profile.save()
        log.record(actor, [entry], now=now)
    offers.forget()


def remove(profile: MachineProfile, *, actor: Actor, now: datetime) -> None:
    """Remove the profile. Its sources are withdrawn at the next checkin of each machine, until that is confirmed."""
    entry = log.NewEntry("machineprofile.deleted", profile, old=_values(profile), weakens=True)
    with transaction.atomic():
        log.record(actor, [entry], now=now)
        profile.delete()
    offers.forget()


def _values(profile: MachineProfile) -> dict[str, Any]:
    # Not "join_token", whose value the log would hide.
    values: dict[str, Any] = msgspec.to_builtins(document.to_document(profile))
    if isinstance(values["machines"], dict) and "join_token" in values["machines"]:
        values["machines"]["joined by"] = values["machines"].pop("join_token")
    return values
