"""How a request moves on: by conditional updates alone, each with its entry on the audit log.

Of any number of coordinators, operators and runs of an agent that want the same, one gets it: an update changes the row
only while it is in the state that it leaves.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q

from turku.api.audit import log
from turku.api.restores import offer_cache
from turku.api.restores.models import ENDED, IN_PROGRESS, OPEN, RequestState, RestoreRequest
from turku.errors import UsageError

LEASE = timedelta(minutes=3)
"""A run that is not heard of for that long is taken for dead: the machine is told of the restore again."""
_EXPIRED_PER_CALL = 500
_LOGGED = frozenset(
    {
        *("state", "attempts", "files", "size_bytes", "restored_snapshot", "message"),
        *("first_approval_by", "second_approval_by", "resolved_snapshot"),
    }
)
"""What an entry of the audit log has of the changes."""


def transition(
    request: RestoreRequest, condition: Q, action: str, actor: log.Actor, *, now: datetime, **changes: Any
) -> bool:
    """Change the request where the condition holds for it; whether it did. ``action``: empty for no audit entry."""
    with transaction.atomic():
        if not RestoreRequest.objects.filter(condition, pk=request.pk).update(**changes):
            return False
        if action:
            told = {name: value for name, value in changes.items() if not isinstance(value, F) and name in _LOGGED}
            log.record(actor, [log.NewEntry(action, request, old={"state": request.state}, new=told)], now=now)
    offer_cache.forget()
    request.refresh_from_db()
    return True


def approve(request: RestoreRequest, *, actor: log.Actor, now: datetime) -> None:
    """Count the actor's approval; with the last one that is needed, the request waits for its machine.

    The second of two approvals is neither the first approver's nor the requester's. Raises UsageError.
    """
    waits = Q(state=RequestState.REQUESTED, date_expires__gt=now)
    first = waits & Q(first_approval_by="")
    second = waits & Q(approvals_needed=2) & ~Q(first_approval_by="") & ~Q(first_approval_by=actor.name)
    second &= ~Q(requested_by=actor.name)
    action = "restore.approved"
    to_first = {"first_approval_by": actor.name, "date_first_approval": now}
    to_second = {"second_approval_by": actor.name, "date_second_approval": now}
    to_machine = {"state": RequestState.WAITING.value, "date_approved": now, "date_offered": now}
    if (
        transition(request, first & Q(approvals_needed__lte=1), action, actor, now=now, **to_first, **to_machine)
        or transition(request, first & Q(approvals_needed=2), action, actor, now=now, **to_first)
        or transition(request, second, action, actor, now=now, **to_second, **to_machine)
    ):
        return
    request.refresh_from_db()
    if request.state == RequestState.REQUESTED and request.date_expires > now:
        raise UsageError(
            "the second approval has to come from somebody else than the first, and not from who asked for the restore"
        )
    raise _not_open(request, "approved", now=now)


def reject(request: RestoreRequest, *, actor: log.Actor, now: datetime) -> None:
    """End a request that waits for approval. Raises UsageError."""
    changes = {"state": RequestState.REJECTED.value, "ended_by": actor.name, "date_ended": now}
    if not transition(request, Q(state=RequestState.REQUESTED), "restore.rejected", actor, now=now, **changes):
        request.refresh_from_db()
        raise _not_open(request, "rejected", now=now)


def cancel(request: RestoreRequest, *, actor: log.Actor, now: datetime) -> None:
    """End a request at whatever stage it is; a machine that is at work learns it with its next report.

    Raises UsageError.
    """
    changes = {"state": RequestState.CANCELLED.value, "ended_by": actor.name, "date_ended": now, "date_offered": None}
    if not transition(request, Q(state__in=OPEN), "restore.cancelled", actor, now=now, **changes):
        request.refresh_from_db()
        raise _not_open(request, "cancelled", now=now)


def expire(*, now: datetime) -> int:
    """The number of requests that expired: nobody approved them, or no machine took them up (again), in time."""
    idle = Q(state__in=(RequestState.REQUESTED, RequestState.WAITING)) | Q(state__in=IN_PROGRESS, date_offered__lte=now)
    over = Q(date_expires__lte=now) & idle
    changes = {"state": RequestState.EXPIRED.value, "date_ended": now, "date_offered": None}
    rows = RestoreRequest.objects.filter(over, state__in=OPEN).select_related("source", "target")
    return sum(
        transition(row, over, "restore.expired", log.COORDINATOR, now=now, **changes)
        for row in rows.order_by("date_expires")[:_EXPIRED_PER_CALL]
    )


def _not_open(request: RestoreRequest, word: str, *, now: datetime) -> UsageError:
    state = RequestState(request.state)
    if state.value not in ENDED and request.date_expires <= now:
        state = RequestState.EXPIRED
    ended = f" by {request.ended_by}" if request.ended_by else ""
    return UsageError(f"request {request.pk} cannot be {word} any more: it is {state.label}{ended}")


def lease_end(now: datetime) -> datetime:
    """Until when a run that was heard of now holds its restore."""
    return now + LEASE
