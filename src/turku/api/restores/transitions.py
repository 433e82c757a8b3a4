"""Transitions of restore requests, each a conditional update with its entry on the audit log.

An update changes the row only while it is in the expected state. So of any number of coordinators, operators and agents
that try the same, one succeeds.
"""

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q

from turku.api.audit import log
from turku.api.restores import offer_cache
from turku.api.restores.models import ENDED, IN_PROGRESS, OPEN, RequestState, RestoreRequest
from turku.errors import UsageError

LEASE = timedelta(minutes=3)
"""A run without a report for that long counts as dead, and the restore is offered again."""
_EXPIRED_PER_CALL = 500
_LOGGED = frozenset(
    {
        *("state", "attempts", "files", "size_bytes", "restored_snapshot", "message"),
        *("first_approval_by", "second_approval_by", "resolved_snapshot"),
    }
)
"""The changed columns that the audit log records."""


def transition(
    request: RestoreRequest, condition: Q, action: str, actor: log.Actor, *, now: datetime, **changes: Any
) -> bool:
    """Change the request if the condition holds, and return True if it did.

    An empty ``action`` writes no audit entry.
    """
    with transaction.atomic():
        if not RestoreRequest.objects.filter(condition, pk=request.pk).update(**changes):
            return False
        if action:
            logged = {name: value for name, value in changes.items() if not isinstance(value, F) and name in _LOGGED}
            log.record(actor, [log.NewEntry(action, request, old={"state": request.state}, new=logged)], now=now)
    offer_cache.forget()
    request.refresh_from_db()
    return True


def approve(request: RestoreRequest, *, actor: log.Actor, now: datetime) -> None:
    """Record the actor's approval. With the last required one, the request waits for its machine.

    The second approval must not come from the first approver or the requester. Raises UsageError.
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
        raise UsageError("the second approval must come from somebody other than the first approver and the requester")
    raise _not_open(request, "approved", now=now)


def reject(request: RestoreRequest, *, actor: log.Actor, now: datetime) -> None:
    """End a request that waits for approval. Raises UsageError."""
    changes = {"state": RequestState.REJECTED.value, "ended_by": actor.name, "date_ended": now}
    if not transition(request, Q(state=RequestState.REQUESTED), "restore.rejected", actor, now=now, **changes):
        request.refresh_from_db()
        raise _not_open(request, "rejected", now=now)


def cancel(request: RestoreRequest, *, actor: log.Actor, now: datetime) -> None:
    """End a request in any open state. A running machine learns it with its next report. Raises UsageError."""
    changes = {"state": RequestState.CANCELLED.value, "ended_by": actor.name, "date_ended": now, "date_offered": None}
    if not transition(request, Q(state__in=OPEN), "restore.cancelled", actor, now=now, **changes):
        request.refresh_from_db()
        raise _not_open(request, "cancelled", now=now)


def expire(*, now: datetime) -> int:
    """Expire requests that were not approved or picked up in time, and return their number."""
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
