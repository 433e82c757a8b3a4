"""Machines and sources that storages report to a coordinator that lost its database.

A storage is believed only while an operator allows it, and only about machines that nobody else has: a machine that is
known already is never changed. The reported machine belongs to that storage, has a secret that nobody knows, and comes
to life by an operator's re-enrolment code alone. Two storages that claim the same machine switch it off until an
operator decides.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from turku.api.audit import log
from turku.api.backups import declaration
from turku.api.backups.models import Source
from turku.api.fleet.identity import auths, keyring, registration
from turku.api.fleet.identity.auths import AuthState
from turku.api.fleet.identity.keyring import Purpose
from turku.api.fleet.models import Auth, AuthKind, Machine, Storage
from turku.api.request.message_errors import MessageErrors
from turku.core.secret import generate_secret
from turku.errors import ApiForbidden, InvalidValue
from turku.policy import names
from turku.protocol.recovery_messages import KnownMachine, KnownSource, MachineOutcome

AUTH_NAME = "recovered from storages"
"""The name of the Auth of recovered machines. While it is open, reports are taken. Nobody knows its secret."""
_LABELS = (
    ("environment_name", "environment name"),
    ("service_name", "service name"),
    ("unit_name", "unit name"),
    ("comment", "comment"),
)
_LOG = logging.getLogger(__name__)


def begin(*, until: datetime, now: datetime) -> Auth:
    """Take reports of storages until that time."""
    auth, _is_new = Auth.objects.get_or_create(
        kind=AuthKind.MACHINE,
        name=AUTH_NAME,
        defaults={"secret_hash": _unknown_hash(Purpose.AUTH), "date_added": now, "uses_limit": 0},
    )
    auth.active, auth.date_ends = True, until
    auth.save()
    log.record(log.COMMAND_LINE, [log.NewEntry("coordinator.recovering", auth, new={"until": until})], now=now)
    return auth


def end(*, now: datetime) -> None:
    """Take no reports any more."""
    for auth in Auth.objects.filter(kind=AuthKind.MACHINE, name=AUTH_NAME, active=True):
        auths.revoke(auth, actor=log.COMMAND_LINE, now=now)


def recovered() -> "list[Machine]":
    """Return the recovered machines, those that did not come back yet among them."""
    return list(Machine.objects.filter(auth__name=AUTH_NAME, auth__kind=AuthKind.MACHINE).select_related("storage"))


def is_waiting(machine: Machine) -> bool:
    """Return True if the recovered machine was not re-enrolled yet."""
    return machine.date_checked_in is None


def take(storage: Storage, machines: Mapping[str, KnownMachine], *, now: datetime) -> dict[str, MachineOutcome]:
    """Create the reported machines that are not known, and return what became of each.

    Raises ApiForbidden if no operator allows it now.
    """
    auth = Auth.objects.filter(kind=AuthKind.MACHINE, name=AUTH_NAME).first()
    # Its number of uses is 0, so that it registers nobody.
    if auth is None or auths.state(auth, now=now) in (AuthState.REVOKED, AuthState.ENDED):
        raise ApiForbidden(
            "this coordinator is not recovering from storages", hint="on it, run: turku-api recover --from-storages"
        )
    return {text: _take_one(storage, text, reported, auth, now=now) for text, reported in machines.items()}


def _take_one(storage: Storage, text: str, reported: KnownMachine, auth: Auth, *, now: datetime) -> MachineOutcome:
    try:
        uuid = UUID(names.machine_uuid(text))
    except InvalidValue as error:
        return MachineOutcome("refused", error.message)
    with transaction.atomic():
        # A machine that was removed here is known as well.
        machine = Machine.every.select_for_update(no_key=True).filter(uuid=uuid).first()
        if machine is None:
            return _create(storage, uuid, reported, auth, now=now)
        if machine.auth_id != auth.pk or not is_waiting(machine) or machine.date_removed is not None:
            return MachineOutcome("known")
        if machine.storage_id != storage.pk:
            return _note_claim(machine, storage, now=now)
        _add_sources(machine, storage, reported.sources, now=now)
        return MachineOutcome("recovered")


def _create(storage: Storage, uuid: UUID, reported: KnownMachine, auth: Auth, *, now: datetime) -> MachineOutcome:
    errors = MessageErrors()
    fields: dict[str, Any] = {
        name: errors.check(name, registration.label_rule(kind), getattr(reported, name)) for name, kind in _LABELS
    }
    if reported.ssh_public_key:
        # Without its key, the storage would not keep the line for it. The machine itself gets a new one.
        fields.update(registration.key_fields("ssh_public_key", reported.ssh_public_key, errors, uuid=uuid))
    if errors.sentence:
        return MachineOutcome("refused", errors.sentence)
    machine = Machine(
        uuid=uuid, secret_hash=_unknown_hash(Purpose.MACHINE), auth=auth, storage=storage, date_registered=now, **fields
    )
    machine.save(force_insert=True)
    entry = log.NewEntry("machine.recovered", machine, new={**fields, "storage": storage})
    log.record(log.actor_of(storage), [entry], now=now)
    refused = _add_sources(machine, storage, reported.sources, now=now)
    return MachineOutcome("recovered", f"without {', '.join(sorted(refused))}" if refused else "")


def _note_claim(machine: Machine, storage: Storage, *, now: datetime) -> MachineOutcome:
    """Switch the machine off, because two storages have it: it was moved, or one of them is lying."""
    if machine.active:
        machine.active = False
        machine.save(update_fields=["active"])
        entry = log.NewEntry("machine.claimed", machine, old={"storage": machine.storage}, new={"storage": storage})
        log.record(log.actor_of(storage), [entry], now=now)
        _LOG.warning("machine %s is reported by storage %s and by %s: it is off", machine, machine.storage, storage)
    return MachineOutcome("claimed", f"storage {machine.storage} has it, too")


def _add_sources(
    machine: Machine, storage: Storage, reported: Mapping[str, KnownSource], *, now: datetime
) -> dict[str, str]:
    """Create the sources that the machine does not have, and return the reason for each that cannot be created."""
    known = declaration.known_sources(machine)
    told = {name: each.options for name, each in reported.items() if each.options and name not in known}
    errors = MessageErrors()
    taken, refused = declaration.check_each(told, known, errors)
    if errors.sentence:
        return dict.fromkeys(told, errors.sentence)
    added = Source.objects.bulk_create(
        declaration.new_source(
            machine, name, columns, now=now, last_backed_up=_moment(reported[name].newest_snapshot, now=now)
        )
        for name, columns in taken.items()
    )
    log.record(
        log.actor_of(storage), [log.NewEntry("source.added", each, new=taken[each.name]) for each in added], now=now
    )
    return refused


def _moment(unix_seconds: float | None, *, now: datetime) -> datetime | None:
    if unix_seconds is None:
        return None
    return min(datetime.fromtimestamp(unix_seconds, UTC), now - timedelta(seconds=1))


def _unknown_hash(purpose: Purpose) -> str:
    return keyring.current().hash(purpose, generate_secret().reveal())
