"""Progress reports of machines about restores: picked up, running, ended or postponed."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import F, Q

from turku.api.audit import log
from turku.api.fleet.models import NAME_LENGTH, Machine
from turku.api.restores.models import APPROVED, ENDED, IN_PROGRESS, RequestState, RestoreRequest
from turku.api.restores.transitions import LEASE, transition
from turku.errors import ApiNotFound, InvalidValue
from turku.policy import names
from turku.protocol.restore_request_messages import AgentRestoreProgressAnswer, AgentRestoreProgressRequest

ATTEMPTS_LIMIT = 100
_PAUSE_STEP = timedelta(minutes=2)
_LONGEST_PAUSE = timedelta(hours=1)
_ENDS = {
    "whole": RequestState.DONE,
    "partial": RequestState.PARTIAL,
    "failed": RequestState.FAILED,
    "refused": RequestState.REFUSED,
}


def own_request(machine: Machine, text: str) -> RestoreRequest:
    """Return the request onto this machine.

    Raises ApiNotFound. Requests onto other machines do not exist for this one.
    """
    rows = RestoreRequest.objects.select_related("source__machine", "target").filter(target=machine)
    try:
        return rows.get(pk=UUID(names.machine_uuid(text)))
    except (InvalidValue, RestoreRequest.DoesNotExist):
        raise ApiNotFound("request: there is no such restore for this machine") from None


def record(machine: Machine, report: AgentRestoreProgressRequest, *, now: datetime) -> AgentRestoreProgressAnswer:
    """Record the report and tell the machine whether to go on. Raises ApiNotFound."""
    request = own_request(machine, report.request)
    actor = log.actor_of(machine)
    if report.step == "picked_up":
        moved = _pick_up(request, report.claim, actor, now=now)
    elif report.step in _ENDS:
        moved = _end(request, report, _ENDS[report.step], actor, now=now)
    elif report.step == "postponed":
        moved = _postpone(request, report, actor, now=now)
    elif report.step == "running":
        moved = _go_on(request, report, actor, now=now)
    else:
        moved = False
    if moved:
        return AgentRestoreProgressAnswer(go_on=report.step in ("picked_up", "running"))
    # The request ended already. The last progress of the machine is still recorded.
    held = Q(claim=report.claim, state__in=(RequestState.CANCELLED, RequestState.EXPIRED))
    transition(request, held, "", actor, now=now, date_progress=now, **_statistics(report))
    request.refresh_from_db()
    return AgentRestoreProgressAnswer(go_on=False, reason=_stop_reason(request, report.claim))


def _lease(now: datetime) -> dict[str, Any]:
    return {"date_progress": now, "date_offered": now + LEASE}


def _pick_up(request: RestoreRequest, claim: str, actor: log.Actor, *, now: datetime) -> bool:
    changes: dict[str, Any] = {"state": RequestState.PICKED_UP.value, **_lease(now)}
    if request.claim == claim:
        # The answer was lost, and the machine repeats the call.
        return transition(request, Q(state__in=IN_PROGRESS, claim=claim), "", actor, now=now, **changes)
    free = Q(state__in=APPROVED, date_offered__lte=now, date_expires__gt=now)
    taken = {"claim": claim, "date_picked_up": now, "attempts": F("attempts") + 1, "message": ""}
    return transition(request, free, "restore.picked_up", actor, now=now, **changes, **taken)


def _go_on(request: RestoreRequest, report: AgentRestoreProgressRequest, actor: log.Actor, *, now: datetime) -> bool:
    changes = {"state": RequestState.RUNNING.value, **_lease(now), **_statistics(report)}
    picked_up, running = (Q(claim=report.claim, state=state) for state in IN_PROGRESS)
    return transition(request, picked_up, "restore.running", actor, now=now, **changes) or transition(
        request, running, "", actor, now=now, **changes
    )


def _end(
    request: RestoreRequest,
    report: AgentRestoreProgressRequest,
    state: RequestState,
    actor: log.Actor,
    *,
    now: datetime,
) -> bool:
    changes = {
        "state": state.value,
        "date_progress": now,
        "date_ended": now,
        "date_offered": None,
        **_statistics(report),
    }
    return transition(request, Q(claim=report.claim, state__in=IN_PROGRESS), "restore.ended", actor, now=now, **changes)


def _postpone(request: RestoreRequest, report: AgentRestoreProgressRequest, actor: log.Actor, *, now: datetime) -> bool:
    if request.attempts >= ATTEMPTS_LIMIT:
        return _end(request, report, RequestState.FAILED, actor, now=now)
    pause = min(request.attempts * _PAUSE_STEP, _LONGEST_PAUSE)
    changes = {"state": RequestState.WAITING.value, "claim": "", "date_progress": now, "date_offered": now + pause}
    held = Q(claim=report.claim, state__in=IN_PROGRESS)
    return transition(request, held, "restore.postponed", actor, now=now, **changes, **_statistics(report))


def _statistics(report: AgentRestoreProgressRequest) -> dict[str, Any]:
    figures: dict[str, Any] = {"files": report.files, "size_bytes": report.size_bytes}
    if report.files_total is not None:
        figures["files_total"] = report.files_total
    if report.size_total_bytes is not None:
        figures["size_total_bytes"] = report.size_total_bytes
    if report.snapshot:
        figures["restored_snapshot"] = report.snapshot[:NAME_LENGTH]
    if report.message:
        figures["message"] = report.message
    return figures


def _stop_reason(request: RestoreRequest, claim: str) -> str:
    state = RequestState(request.state)
    if state.value in ENDED:
        by = f" by {request.ended_by}" if request.ended_by else ""
        return f"the request is {state.label}{by}"
    if state.value in IN_PROGRESS and request.claim != claim:
        return "another run of this machine has it"
    return f"the request {state.label}"
