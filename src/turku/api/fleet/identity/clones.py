"""Copies: two running systems that use the identity of one machine, such as a virtual machine and its clone.

A machine reports its running system, which changes with each boot and is never the same again. Two systems that check
in by turns return to earlier ones again and again. A restored backup or a disk image that was rolled back boots anew
and returns to nothing. A virtual machine that was resumed from a snapshot of its memory returns once.
"""

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from turku.api.audit import log
from turku.api.fleet.models import Machine

SEEN_FOR = timedelta(days=1)
"""The time for which a copy counts as in use after it was seen."""
WARNING = (
    "two running systems use the identity of this machine: one is a copy of the other. Give the copy an identity of "
    "its own: on the copy, stop turku-agent-ping.timer, remove 10-machine_uuid.json from config.d in "
    "/var/lib/turku-agent, and the ssh_key files beside config.d, then run turku-update-config"
)
_REMEMBERED = 8


def seen(*, now: datetime) -> Q:
    """Return a condition for machines of which a copy was in use lately."""
    return Q(date_clone_seen__gt=now - SEEN_FOR)


def is_same(one: str, other: str) -> bool:
    """Return True if two reports may be of the same running system.

    A program that may not see the first process, such as one of a unit with ProtectProc, reports the boot alone.
    """
    return one == other or (
        bool(one and other) and (f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}."))
    )


@transaction.atomic
def note(key: int, system: str, *, now: datetime) -> bool:
    """Record the running system that checks in as this machine, and return True if another one does so by turns."""
    row = Machine.objects.select_for_update(no_key=True).filter(pk=key).first()
    if row is None or is_same(row.running_system, system):
        return False
    before = row.running_system
    earlier = [each for each in row.earlier_systems if not is_same(each, system)]
    returns = len(earlier) < len(row.earlier_systems)
    is_copy = returns and row.date_system_returned is not None
    row.earlier_systems = ([before] if before else []) + earlier[: _REMEMBERED - 1]
    row.running_system = system
    # A boot between two returns says that they were not by turns.
    row.date_system_returned = now if returns else None
    if is_copy:
        if row.date_clone_seen is None or row.date_clone_seen < now - SEEN_FOR:
            log.record(log.COORDINATOR, [log.NewEntry("machine.copy_seen", row)], now=now)
        row.date_clone_seen = now
    row.save(update_fields=["running_system", "earlier_systems", "date_system_returned", "date_clone_seen"])
    return is_copy
