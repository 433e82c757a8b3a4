"""What a machine tells of a restore that it was told of: it picks it up, goes on, ends."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import F, Q

from turku.api.audit import log
from turku.api.fleet.models import NAME_LENGTH, Machine
from turku.api.restores.models import APPROVED, AT_WORK, OVER, RestoreRequest, State
from turku.api.restores.transitions import lease_end, move
from turku.errors import ApiNotFound, InvalidValue
from turku.policy import names
from turku.protocol.restore_request_messages import AgentRestoreProgressAnswer, AgentRestoreProgressRequest

ATTEMPTS_LIMIT = 100
_PAUSE_STEP = timedelta(minutes=2)
_LONGEST_PAUSE = timedelta(hours=1)
_ENDS = {
    "whole": State.DONE,
    "partial": State.PARTIAL,
    "failed": State.FAILED,
    "refused": State.REFUSED,
}


def own_request(machine: Machine, text: str) -> RestoreRequest:
    """The request onto this machine. Raises ApiNotFound: what is another machine's does not exist for it."""
    rows = RestoreRequest.objects.select_related("source__machine", "target").filter(target=machine)
    try:
        return rows.get(pk=UUID(names.machine_uuid(text)))
    except (InvalidValue, RestoreRequest.DoesNotExist):
        raise ApiNotFound("request: there is no such restore for this machine") from None


def note(machine: Machine, told: AgentRestoreProgressRequest, *, now: datetime) -> AgentRestoreProgressAnswer:
    """Take over what the machine tells; whether it is to go on. Raises ApiNotFound."""
    request = own_request(machine, told.request)
    actor = log.actor_of(machine)
    if told.step == "picked_up":
        moved = _pick_up(request, told.claim, actor, now=now)
    elif told.step in _ENDS:
        moved = _end(request, told, _ENDS[told.step], actor, now=now)
    elif told.step == "postponed":
        moved = _postpone(request, told, actor, now=now)
    elif told.step == "running":
        moved = _go_on(request, told, actor, now=now)
    else:
        moved = False
    if moved:
        return AgentRestoreProgressAnswer(go_on=told.step in ("picked_up", "running"))
    # Ended here already: how far the machine came is still worth knowing.
    held = Q(claim=told.claim, state__in=(State.CANCELLED, State.EXPIRED))
    move(request, held, "", actor, now=now, date_progress=now, **_figures(told))
    request.refresh_from_db()
    return AgentRestoreProgressAnswer(go_on=False, reason=_why_not(request, told.claim))


def _pick_up(request: RestoreRequest, claim: str, actor: log.Actor, *, now: datetime) -> bool:
    changes: dict[str, Any] = {"state": State.PICKED_UP.value, "date_progress": now, "date_offered": lease_end(now)}
    if request.claim == claim:
        # The answer was lost, and it asks again.
        return move(request, Q(state__in=AT_WORK, claim=claim), "", actor, now=now, **changes)
    free = Q(state__in=APPROVED, date_offered__lte=now, date_expires__gt=now)
    taken = {"claim": claim, "date_picked_up": now, "attempts": F("attempts") + 1, "message": ""}
    return move(request, free, "restore.picked_up", actor, now=now, **changes, **taken)


def _go_on(request: RestoreRequest, told: AgentRestoreProgressRequest, actor: log.Actor, *, now: datetime) -> bool:
    changes = {"state": State.RUNNING.value, "date_progress": now, "date_offered": lease_end(now), **_figures(told)}
    picked_up, running = (Q(claim=told.claim, state=state) for state in AT_WORK)
    return move(request, picked_up, "restore.running", actor, now=now, **changes) or move(
        request, running, "", actor, now=now, **changes
    )


def _end(
    request: RestoreRequest, told: AgentRestoreProgressRequest, state: State, actor: log.Actor, *, now: datetime
) -> bool:
    changes = {"state": state.value, "date_progress": now, "date_ended": now, "date_offered": None, **_figures(told)}
    return move(request, Q(claim=told.claim, state__in=AT_WORK), "restore.ended", actor, now=now, **changes)


def _postpone(request: RestoreRequest, told: AgentRestoreProgressRequest, actor: log.Actor, *, now: datetime) -> bool:
    if request.attempts >= ATTEMPTS_LIMIT:
        return _end(request, told, State.FAILED, actor, now=now)
    pause = min(request.attempts * _PAUSE_STEP, _LONGEST_PAUSE)
    changes = {"state": State.WAITING.value, "claim": "", "date_progress": now, "date_offered": now + pause}
    held = Q(claim=told.claim, state__in=AT_WORK)
    return move(request, held, "restore.postponed", actor, now=now, **changes, **_figures(told))


def _figures(told: AgentRestoreProgressRequest) -> dict[str, Any]:
    figures: dict[str, Any] = {"files": told.files, "size_bytes": told.size_bytes}
    if told.files_total is not None:
        figures["files_total"] = told.files_total
    if told.size_total_bytes is not None:
        figures["size_total_bytes"] = told.size_total_bytes
    if told.snapshot:
        figures["restored_snapshot"] = told.snapshot[:NAME_LENGTH]
    if told.message:
        figures["message"] = told.message
    return figures


def _why_not(request: RestoreRequest, claim: str) -> str:
    state = State(request.state)
    if state.value in OVER:
        by = f" by {request.ended_by}" if request.ended_by else ""
        return f"the request is {state.label}{by}"
    if state.value in AT_WORK and request.claim != claim:
        return "another run of this machine has it"
    return f"the request {state.label}"
