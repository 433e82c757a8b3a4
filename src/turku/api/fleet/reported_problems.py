"""Problems that a machine reports of itself: sessions with storages that failed, and sources that were refused.

The texts are a machine's. They are cut and made printable before they are stored.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from turku.api.fleet.models import Machine
from turku.core.log import one_line
from turku.protocol.messages import SESSION_FAILURE_REASON_LIMIT, SessionFailure

NAMED = 20
"""Refused sources that are stored, and sources of a failed session."""
_NAME_LENGTH = 100
_LONGEST = timedelta(days=366)


def record_sessions(uuid: UUID, failures: Sequence[SessionFailure], *, now: datetime) -> None:
    """Record the failed sessions that an authenticated machine reports, or that there is none any more."""
    failed = [_stored(failure, now=now) for failure in failures]
    since = min((datetime.fromisoformat(each["since"]) for each in failed), default=None)
    known = Machine.objects.filter(uuid=uuid).values_list("session_failures", flat=True).first()
    if known != failed:
        Machine.objects.filter(uuid=uuid).update(session_failures=failed, date_sessions_failed=since)


def _stored(failure: SessionFailure, *, now: datetime) -> dict[str, Any]:
    since = now - min(timedelta(seconds=min(failure.seconds_ago, _LONGEST.total_seconds())), _LONGEST)
    return {
        "storage": _line(failure.storage, _NAME_LENGTH),
        "kind": _line(failure.kind, _NAME_LENGTH),
        "reason": _line(failure.reason, SESSION_FAILURE_REASON_LIMIT),
        "sources": [_line(name, _NAME_LENGTH) for name in failure.sources[:NAMED]],
        "since": since.isoformat(timespec="seconds"),
    }


def refused(reasons: Mapping[str, str]) -> dict[str, str]:
    """Return the refused sources as they are stored and sent, the first ones of many."""
    return {
        _line(name, _NAME_LENGTH): _line(reason, SESSION_FAILURE_REASON_LIMIT)
        for name, reason in list(reasons.items())[:NAMED]
    }


def record_refused(machine: Machine, refused_sources: Mapping[str, str], *, now: datetime) -> None:
    """Record the sources that the machine declares and that cannot be taken. Write only what changed."""
    if machine.refused_sources == refused_sources:
        return
    machine.refused_sources = dict(refused_sources)
    machine.date_sources_refused = (machine.date_sources_refused or now) if refused_sources else None
    machine.save(update_fields=["refused_sources", "date_sources_refused"])


def _line(text: str, limit_characters: int) -> str:
    # Cut before it is escaped as well, because an escape is longer than its character.
    return one_line(text[:limit_characters])[:limit_characters]
