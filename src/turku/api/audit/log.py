"""Writes to the audit log, in the transaction of the change itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Model

from turku.api.audit.models import TEXT_LENGTH, ActorKind, AuditEntry
from turku.api.audit.values import loggable
from turku.api.request import client_address
from turku.core.log import one_line
from turku.errors import ApiThrottled

FLOOD_LIMIT = 1000
FLOOD_SPAN = timedelta(hours=1)
"""Further changes of a program that causes more entries in the span are refused. A compromised machine must not fill a
log that only grows."""


@dataclass(frozen=True)
class Actor:
    """The person or program that acts."""

    kind: ActorKind
    name: str = ""


COMMAND_LINE = Actor(ActorKind.COMMAND, "turku-api")
COORDINATOR = Actor(ActorKind.COORDINATOR)


@dataclass(frozen=True)
class NewEntry:
    """An entry to write. ``subject`` is the row that it describes."""

    action: str
    subject: Model | None
    old: Mapping[str, Any] = field(default_factory=dict)
    new: Mapping[str, Any] = field(default_factory=dict)
    weakens: bool = False


def change_entry(
    action: str, subject: Model, changes: Mapping[str, tuple[Any, Any]], *, weakens: bool = False
) -> NewEntry:
    """Return the entry for changes of columns, each with its old and new value."""
    old = {name: before for name, (before, _after) in changes.items()}
    new = {name: after for name, (_before, after) in changes.items()}
    return NewEntry(action, subject, old, new, weakens)


def subject_key(row: Model) -> str:
    """Return the permanent name of the row.

    It is the UUID of machines and sources, the name of storages, and the primary key of others.
    """
    unchanging = {"machine": "uuid", "storage": "name"}.get(str(row._meta.model_name), "pk")
    return str(getattr(row, unchanging))


def actor_of(row: Model) -> Actor:
    """Return the actor for a machine or storage that acts for itself."""
    return Actor(ActorKind(str(row._meta.model_name)), subject_key(row))


def person(user: Any) -> Actor:
    """Return the actor for a user of the admin site."""
    return Actor(ActorKind.PERSON, user.get_username())


def _text(text: str) -> str:
    return one_line(text)[:TEXT_LENGTH]


def record(actor: Actor, entries: Sequence[NewEntry], *, now: datetime) -> None:
    """Write the entries in one query, with the address of the current request."""
    address = client_address.current_address() or None
    AuditEntry.objects.bulk_create(
        AuditEntry(
            date=now,
            action=entry.action,
            actor_kind=actor.kind,
            actor=_text(actor.name),
            address=address,
            subject_kind=str(entry.subject._meta.verbose_name) if entry.subject else "",
            subject_key=_text(subject_key(entry.subject)) if entry.subject else "",
            subject=_text(str(entry.subject)) if entry.subject else "",
            weakens=entry.weakens,
            old=loggable(entry.old),
            new=loggable(entry.new),
        )
        for entry in entries
    )


def record_of_program(actor: Actor, entries: Sequence[NewEntry], *, now: datetime) -> None:
    """Write actions of a machine or storage. Raises ApiThrottled after too many within the hour."""
    if not entries:
        return
    require_room(actor, now=now)
    record(actor, entries, now=now)


def require_room(actor: Actor, *, now: datetime) -> None:
    """Raise ApiThrottled if a machine or storage did too much within the hour. Callers check it before the work."""
    recent = AuditEntry.objects.filter(
        actor_kind=actor.kind, actor=_text(actor.name), date__gt=now - FLOOD_SPAN, date__lte=now
    )
    if recent.order_by()[:FLOOD_LIMIT].count() >= FLOOD_LIMIT:
        raise ApiThrottled(f"more than {FLOOD_LIMIT} changes within an hour", hint="wait an hour, then send it again")


def was_recorded(actor: Actor, action: str, subject: Model, *, within: timedelta, now: datetime) -> bool:
    """Return True if an entry of the actor with this action and subject is younger than ``within``."""
    recent = AuditEntry.objects.filter(
        actor_kind=actor.kind,
        actor=_text(actor.name),
        action=action,
        subject_key=_text(subject_key(subject)),
        date__gt=now - within,
        date__lte=now,
    )
    return recent.order_by().exists()
