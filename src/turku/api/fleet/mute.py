"""Mutes of machines: until a date and for a reason, their problems do not count."""

from datetime import datetime, timedelta

from django.db import transaction

from turku.api.audit import log
from turku.api.fleet.models import NAME_LENGTH, Machine
from turku.errors import InvalidValue

LONGEST_MUTE = timedelta(days=366)


def check(until: datetime | None, reason: str, *, now: datetime) -> None:
    """Raise InvalidValue unless the mute has a reason and an end in the future.

    A mute without both is the end of a mute.
    """
    if until is None and not reason.strip():
        return
    if until is None:
        raise InvalidValue("a mute needs an end", hint="set the time until which the machine is muted")
    if not reason.strip():
        raise InvalidValue("a mute needs a reason", hint="explain why the machine is away, for other operators")
    if len(reason) > NAME_LENGTH:
        raise InvalidValue(f"the reason of a mute is longer than {NAME_LENGTH} characters")
    if not now < until <= now + LONGEST_MUTE:
        raise InvalidValue(
            f"a mute ends in the future, after at most {LONGEST_MUTE.days} days", hint="mute it again later"
        )


@transaction.atomic
def mute(machine: Machine, until: datetime | None, reason: str, *, actor: log.Actor, now: datetime) -> None:
    """Mute the machine until that moment. None, with an empty reason, ends a mute. Raises InvalidValue."""
    check(until, reason, now=now)
    locked = Machine.objects.select_for_update(no_key=True).get(pk=machine.pk)
    old = {"date_muted_until": locked.date_muted_until, "mute_reason": locked.mute_reason}
    new = {"date_muted_until": until, "mute_reason": reason}
    for row in (locked, machine):
        row.date_muted_until, row.mute_reason = until, reason
    locked.save(update_fields=list(new))
    action = "machine.muted" if until else "machine.unmuted"
    log.record(actor, [log.NewEntry(action, machine, old=old, new=new, weakens=until is not None)], now=now)
