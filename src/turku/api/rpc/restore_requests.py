"""The calls of people about restores: ``/v2/restore_request`` and those whose names begin so, for the console's pages.

A caller authenticates by the session of the admin site, with Django's CSRF protection, and has the permissions of that
account. So there is no other secret to keep, and one place to disable a person.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from http import HTTPStatus
from typing import Any, TypeVar
from uuid import UUID

from django.http import HttpRequest, HttpResponse

from turku.api.audit import log
from turku.api.backups.models import Source
from turku.api.fleet.models import Machine
from turku.api.request.message_errors import checked
from turku.api.restores import description, new_request, transitions
from turku.api.restores.models import OPEN, RestoreRequest
from turku.api.rpc.endpoint import View, decoded, refusal, wrong_method
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import InvalidValue, MalformedMessage, UsageError
from turku.policy import names
from turku.protocol import codec
from turku.protocol.restore_messages import path_bytes
from turku.protocol.restore_request_messages import RestoreDecision, RestoreListRequest, RestoreWish

ASK, APPROVE, VIEW = (f"restores.{verb}_restorerequest" for verb in ("add", "approve", "view"))
_LISTED = 200

Message = TypeVar("Message")


def _refused(request: HttpRequest, permissions: Sequence[str]) -> HttpResponse | None:
    if not request.user.is_authenticated:
        return refusal(HTTPStatus.UNAUTHORIZED, "log in at the admin site first")
    if not any(request.user.has_perm(permission) for permission in permissions):
        return refusal(HTTPStatus.FORBIDDEN, "this account has no permission to do that")
    return None


def _people_call(kind: type[Message], *permissions: str) -> Callable[[Callable[[Any, Message], Any]], View]:
    """Turn a function from user and message to an answer into a view for users with any of the permissions.

    Refusals: 401 without a session, 403 without permission, 400 for an invalid message, 404 for a missing row, and 409
    for an action that is no longer possible.
    """

    def decorate(handle: Callable[[Any, Message], Any]) -> View:
        @wraps(handle)
        def view(request: HttpRequest) -> HttpResponse:
            refused = wrong_method(request) or _refused(request, permissions)
            if refused is not None:
                return refused
            try:
                answer = handle(request.user, decoded(request, kind))
            except (MalformedMessage, InvalidValue) as error:
                return refusal(HTTPStatus.BAD_REQUEST, error.sentence)
            except UsageError as error:
                return refusal(HTTPStatus.CONFLICT, error.sentence)
            except (Source.DoesNotExist, Machine.DoesNotExist, RestoreRequest.DoesNotExist):
                return refusal(HTTPStatus.NOT_FOUND, "there is no such machine, source or request")
            return HttpResponse(codec.encode(answer), content_type="application/json")

        return view

    return decorate


def _uuid(field: str, text: str) -> UUID:
    return UUID(checked(field, names.machine_uuid, text))


@_people_call(RestoreWish, ASK)
def restore_request(user: Any, wish: RestoreWish) -> Any:
    """Ask for a restore."""
    sources = Source.objects.select_related("machine")
    request = new_request.create(
        new_request.RequestedRestore(
            source=sources.get(machine__uuid=_uuid("machine", wish.machine), name=wish.source),
            target=Machine.objects.get(uuid=_uuid("onto", wish.onto)) if wish.onto else None,
            directory=wish.directory,
            reason=wish.reason,
            snapshot=wish.snapshot,
            moment=wish.at,
            paths=[path_bytes(path) for path in wish.paths],
            overwrite=wish.overwrite,
            days=wish.days,
        ),
        actor=log.person(user),
        may_choose_any_machine=user.is_superuser,
        now=SYSTEM_CLOCK.now(),
    )
    return description.message_fields(request)


def _decide(decide: Callable[..., None], user: Any, decision: RestoreDecision) -> Any:
    rows = RestoreRequest.objects.select_related("source__machine", "target")
    request = rows.get(pk=_uuid("request", decision.request))
    decide(request, actor=log.person(user), now=SYSTEM_CLOCK.now())
    return description.message_fields(request)


@_people_call(RestoreDecision, APPROVE)
def restore_request_approve(user: Any, decision: RestoreDecision) -> Any:
    """Approve a request."""
    return _decide(transitions.approve, user, decision)


@_people_call(RestoreDecision, APPROVE)
def restore_request_reject(user: Any, decision: RestoreDecision) -> Any:
    """Reject a request."""
    return _decide(transitions.reject, user, decision)


@_people_call(RestoreDecision, ASK, APPROVE)
def restore_request_cancel(user: Any, decision: RestoreDecision) -> Any:
    """Cancel a request."""
    return _decide(transitions.cancel, user, decision)


@_people_call(RestoreListRequest, VIEW)
def restore_request_list(_user: Any, wanted: RestoreListRequest) -> Any:
    """Return the newest requests."""
    transitions.expire(now=SYSTEM_CLOCK.now())
    rows = RestoreRequest.objects.select_related("source__machine__storage", "target")
    if wanted.machine is not None:
        rows = rows.filter(source__machine__uuid=_uuid("machine", wanted.machine))
    if not wanted.with_over:
        rows = rows.filter(state__in=OPEN)
    return {"requests": [description.message_fields(row) for row in rows[:_LISTED]]}
