"""New restore requests: checked and saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
from django.conf import settings
from django.db import transaction

from turku.api.audit import log
from turku.api.backups.models import Source
from turku.api.fleet.models import Machine
from turku.api.restores import description, offer_cache, policies
from turku.api.restores.models import REASON_LENGTH, Overwrite, RequestState, RestoreRequest
from turku.errors import InvalidValue
from turku.policy import names
from turku.policy.characters import size_bytes
from turku.policy.timing import moments
from turku.protocol.codec import encode
from turku.protocol.restore_messages import PATHS_LIMIT, wire_path

DEFAULT_DAYS = 7
"""Days after which a request that was not picked up expires."""
DAYS_LIMIT = 90
_PATHS_LIMIT_BYTES = 256 * 1024


@dataclass(frozen=True)
class RequestedRestore:
    """A restore that an operator asks for. ``target`` of None is the machine of the source."""

    source: Source
    directory: str
    reason: str
    target: Machine | None = None
    snapshot: str = ""
    moment: str = ""
    paths: Sequence[bytes] = ()
    overwrite: str = Overwrite.NEVER.value
    days: int = DEFAULT_DAYS


def create(terms: RequestedRestore, *, actor: log.Actor, may_choose_any_machine: bool, now: datetime) -> RestoreRequest:
    """Create and save the request. ``build`` describes the parameters and exceptions."""
    request = build(terms, requested_by=actor.name, may_choose_any_machine=may_choose_any_machine, now=now)
    save(request, actor=actor, now=now)
    return request


def build(terms: RequestedRestore, *, requested_by: str, may_choose_any_machine: bool, now: datetime) -> RestoreRequest:
    """Return an unsaved request, which waits for approval or, if no policy requires one, for the machine.

    With ``may_choose_any_machine``, as a superuser has it, the target may be registered with another Auth. Raises
    InvalidValue.
    """
    target = terms.target or terms.source.machine
    needed = _approvals(terms.source.machine, target, may_choose_any_machine=may_choose_any_machine)
    if terms.snapshot and terms.moment:
        raise InvalidValue("a restore is of a snapshot or of a moment, not both")
    if not 1 <= terms.days <= DAYS_LIMIT:
        raise InvalidValue(f"a request waits for 1 to {DAYS_LIMIT} days")
    request = RestoreRequest(
        source=terms.source,
        target=target,
        snapshot=checked_snapshot(terms.snapshot),
        moment=resolved_moment(terms.moment, now=now),
        paths=checked_paths(terms.paths),
        directory=names.target_directory(terms.directory),
        overwrite=Overwrite(terms.overwrite).value,
        reason=checked_reason(terms.reason),
        approvals_needed=needed,
        requested_by=requested_by,
        date_requested=now,
        date_expires=now + timedelta(days=terms.days),
    )
    if not needed:
        request.state, request.date_approved, request.date_offered = RequestState.WAITING, now, now
    return request


def save(request: RestoreRequest, *, actor: log.Actor, now: datetime) -> None:
    """Save the request and log it."""
    with transaction.atomic():
        request.save(force_insert=True)
        log.record(actor, [log.NewEntry("restore.requested", request, new=logged_values(request))], now=now)
    offer_cache.forget()


def logged_values(request: RestoreRequest) -> dict[str, object]:
    """Return the values of a request for the audit log."""
    return {
        "source": str(request.source.pk),
        "of_machine": str(request.source.machine.uuid),
        "onto_machine": str(request.target.uuid),
        **description.terms(request),
    }


def _approvals(machine: Machine, target: Machine, *, may_choose_any_machine: bool) -> int:
    rules = policies.rules_of(machine)
    if target.pk == machine.pk:
        needed = rules.approvals
    else:
        if not may_choose_any_machine and (not rules.other_machines or target.auth_id != machine.auth_id):
            raise InvalidValue(
                f"the history of {machine} may not be restored onto {target}",
                hint="they are registered with different auths, or a restore policy forbids it; a superuser may",
            )
        needed = max(rules.approvals, policies.rules_of(target).approvals)
    if not target.active:
        raise InvalidValue(f"machine {target} is switched off", hint="it picks up no restores, switch it on first")
    return needed


def checked_snapshot(text: str) -> str:
    """Return the name of a snapshot, or an empty text. Raises InvalidValue."""
    name = names.label(text, kind="snapshot name")
    if "/" in name or name.startswith("."):
        raise InvalidValue(f"{name!r} is not a valid snapshot name")
    return name


def resolved_moment(text: str, *, now: datetime) -> str:
    """Return the moment that the words mean now, in ISO form, or an empty text.

    ``3 days ago`` must not move while a request waits. Raises InvalidValue.
    """
    if not text.strip():
        return ""
    zone = ZoneInfo(settings.TIME_ZONE)
    return moments.parse(text.strip(), now=now, zone=zone).astimezone(zone).isoformat()


def checked_paths(paths: Sequence[bytes]) -> list[object]:
    """Return the paths within their source as they are stored. Raises InvalidValue."""
    if len(paths) > PATHS_LIMIT:
        raise InvalidValue(f"more than {PATHS_LIMIT} paths; ask for a directory that holds them")
    lawful = dict.fromkeys(names.path_inside(path) for path in paths)
    if b"" in lawful:
        return []
    if any(b"\0" in path for path in lawful):
        raise InvalidValue("a path has a NUL character")
    stored: list[object] = [msgspec.to_builtins(wire_path(path)) for path in lawful]
    if len(encode(stored)) > _PATHS_LIMIT_BYTES:
        raise InvalidValue("the paths are too long together; ask for a directory that holds them")
    return stored


def checked_reason(text: str) -> str:
    """Return the reason as one line. Raises InvalidValue for an empty reason."""
    reason = " ".join(text.split())
    size_bytes(reason)
    if not reason:
        raise InvalidValue("a restore request needs a reason", hint="the audit log keeps the reason")
    if len(reason) > REASON_LENGTH:
        raise InvalidValue(f"the reason is longer than {REASON_LENGTH} characters")
    return reason
