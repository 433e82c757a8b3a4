"""Access grants: decisions on whether a storage may show history to a machine or send it there."""

from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q, QuerySet

from turku.api.audit import log
from turku.api.backups.models import Source
from turku.api.fleet import former_history
from turku.api.fleet.identity import authentication
from turku.api.fleet.models import Storage
from turku.api.request.message_errors import checked
from turku.api.restores import new_request, offers, policies
from turku.api.restores.models import IN_PROGRESS, RestoreRequest
from turku.api.restores.transitions import transition
from turku.errors import InvalidValue
from turku.policy import names
from turku.protocol.restore_messages import StorageAccessAnswer, StorageAccessRequest

NOTE_RESOLUTION = timedelta(minutes=10)
"""The audit log has one entry for browsing, and one for denials, in that time for each machine and source."""

# Both cases have the same sentence, so that a machine does not learn which sources others have.
_UNKNOWN = (
    "the coordinator knows no such source of a machine of this storage, or no approved restore of it onto this machine "
    "that is running now"
)
_HIDDEN = "a policy of the coordinator hides this machine's history from it; an operator can request a restore there"


def decide(storage: Storage, asked: StorageAccessRequest, *, now: datetime) -> StorageAccessAnswer:
    """Decide whether the storage may show or send this history to the machine.

    History of another storage is treated as missing (threat S1). A storage may show a moved machine the history that it
    still keeps of it. Raises MalformedMessage for invalid names.
    """
    uuid = authentication.machine_uuid(asked.machine.uuid)
    owner = uuid if asked.of_machine is None else UUID(checked("of_machine", names.machine_uuid, asked.of_machine))
    source = (
        Source.objects.select_related("machine")
        .filter(name=asked.source, machine__uuid=owner)
        .filter(Q(machine__storage=storage) | Q(machine__uuid__in=former_history.readable_on(storage)))
        .first()
    )
    if source is None:
        return StorageAccessAnswer(allowed=False, reason=_UNKNOWN)
    if source.machine.storage_id != storage.pk and (asked.request is not None or owner != uuid):
        # Requests of operators are for the storage that backs the machine up. Its former one serves the machine alone.
        return StorageAccessAnswer(allowed=False, reason=_UNKNOWN)
    if asked.request is not None or owner != uuid:
        return _by_request(storage, asked, source, uuid, now=now)
    return _own_history(storage, asked, source, now=now)


def _own_history(
    storage: Storage, asked: StorageAccessRequest, source: Source, *, now: datetime
) -> StorageAccessAnswer:
    machine = source.machine
    if not machine.active or not source.active:
        reason = _UNKNOWN
    elif not policies.rules_of(machine).history_visible:
        reason = _HIDDEN
    else:
        _note(log.actor_of(machine), asked, source, storage, now=now)
        return StorageAccessAnswer(allowed=True)
    _note_once("restore.denied", log.actor_of(storage), asked, source, storage, now=now)
    return StorageAccessAnswer(allowed=False, reason=reason)


def _by_request(
    storage: Storage, asked: StorageAccessRequest, source: Source, uuid: UUID, *, now: datetime
) -> StorageAccessAnswer:
    request = _running(source, uuid, asked.request, now=now)
    if request is None:
        # The storage is the actor, because it names the machine itself.
        _note_once("restore.denied", log.actor_of(storage), asked, source, storage, now=now)
        return StorageAccessAnswer(allowed=False, reason=_UNKNOWN)
    if asked.resolved is None:
        _note(log.actor_of(request.target), asked, source, storage, now=now)
    else:
        name = checked("resolved", new_request.checked_snapshot, asked.resolved)
        # The first resolved snapshot counts, even if another session resolved another one.
        transition(
            request,
            Q(resolved_snapshot="", state__in=IN_PROGRESS),
            "restore.resolved",
            log.actor_of(storage),
            now=now,
            resolved_snapshot=name,
        )
        request.refresh_from_db(fields=["resolved_snapshot"])
    return StorageAccessAnswer(
        allowed=True,
        paths=request.paths,
        snapshot=offers.snapshot_choice(request),
        resolved=request.resolved_snapshot or None,
    )


def _running(source: Source, uuid: UUID, text: str | None, *, now: datetime) -> RestoreRequest | None:
    """Return the request if a run of that machine holds it."""
    try:
        key = UUID(names.machine_uuid(text or ""))
    except InvalidValue:
        return None
    held: QuerySet[RestoreRequest] = RestoreRequest.objects.filter(
        pk=key,
        source=source,
        target__uuid=uuid,
        target__active=True,
        state__in=IN_PROGRESS,
        # The lease of the run.
        date_offered__gt=now,
    )
    return held.select_related("target", "source__machine").first()


def _entry(action: str, asked: StorageAccessRequest, source: Source, storage: Storage) -> log.NewEntry:
    new = {
        "source": source.name,
        "of_machine": str(source.machine.uuid),
        "machine": asked.machine.uuid.lower(),
        "storage": storage.name,
        "action": asked.action,
        "request": asked.request or "",
    }
    return log.NewEntry(action, source, new=new)


def _note(actor: log.Actor, asked: StorageAccessRequest, source: Source, storage: Storage, *, now: datetime) -> None:
    """Log each restore, and browsing once in a while. Raises ApiThrottled for a flood of them."""
    if asked.action == "browse":
        _note_once("restore.browsed", actor, asked, source, storage, now=now)
        return
    log.record_of_program(actor, [_entry("restore.granted", asked, source, storage)], now=now)


def _note_once(
    action: str, actor: log.Actor, asked: StorageAccessRequest, source: Source, storage: Storage, *, now: datetime
) -> None:
    if not log.was_recorded(actor, action, source, within=NOTE_RESOLUTION, now=now):
        log.record_of_program(actor, [_entry(action, asked, source, storage)], now=now)
