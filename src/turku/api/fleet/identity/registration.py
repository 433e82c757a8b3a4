"""Registration of machines and storages, and updates of their own description."""

import itertools
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from turku.api.audit import log
from turku.api.fleet import assignment, versions
from turku.api.fleet.identity import auths, keyring
from turku.api.fleet.identity.authentication import invalid_credentials, refusal, removed
from turku.api.fleet.identity.keyring import MINIMUM_SECRET_LENGTH, Purpose
from turku.api.fleet.models import Auth, AuthKind, Machine, Storage
from turku.api.request.message_errors import MessageErrors
from turku.core.log import one_line
from turku.core.units import rough_duration
from turku.errors import InvalidValue
from turku.policy import names, ssh_key
from turku.policy.timing import clock_agreement
from turku.protocol.messages import (
    FAULT_CLOCK,
    FAULT_KINDS,
    FAULT_OTHER,
    MachineConfiguration,
    RegistrationAuth,
    StorageConfiguration,
)

_log = logging.getLogger(__name__)

HOST_KEYS_LIMIT = 16
FAULT_LENGTH = 500


def require_auth(
    given: RegistrationAuth | None, known: Machine | Storage | None, purpose: Purpose, secret: str, *, now: datetime
) -> Auth:
    """Return the Auth for a caller that is not authenticated. Raises ApiForbidden, ApiRemoved.

    A caller that is ``known`` already has sent a wrong secret, or is switched off or removed. Refusing it takes the
    same time. One who has an Auth of the fleet learns that the identity was removed.
    """
    kind = AuthKind.MACHINE if purpose is Purpose.MACHINE else AuthKind.STORAGE
    auth = auths.find(kind, given, now=now) if given is not None else None
    if auth is not None and known is not None and known.date_removed is not None:
        raise removed(known)
    if auth is None or known is not None:
        raise refusal(known, purpose, secret)
    return auth


def label_rule(kind: str) -> Callable[[str], str]:
    """Return the rule for an informational text of that kind. Empty texts are allowed."""
    return lambda text: names.label(text, kind=kind) if text else ""


def secret_for_registration(secret: str) -> str:
    """Return the secret. Raises InvalidValue if it is too short for a fast hash."""
    if len(secret) < MINIMUM_SECRET_LENGTH:
        raise InvalidValue(f"is shorter than {MINIMUM_SECRET_LENGTH} characters")
    return secret


def machine_fields(message: MachineConfiguration, errors: MessageErrors, *, uuid: UUID) -> dict[str, Any]:
    """Return the Machine columns that the message sets. ``uuid`` is that of the new or known machine."""
    fields: dict[str, Any] = {"pinned_keys": " ".join(message.accepted_keys)}
    for name, kind in (
        ("environment_name", "environment name"),
        ("service_name", "service name"),
        ("unit_name", "unit name"),
        ("comment", "comment"),
    ):
        text = getattr(message, name)
        if text is not None:
            fields[name] = errors.check(f"machine.{name}", label_rule(kind), text)
    if message.published is not None:
        fields["published"] = message.published
    if message.ssh_public_key is not None:
        fields.update(key_fields("machine.ssh_public_key", message.ssh_public_key, errors, uuid=uuid))
    return fields


def key_fields(place: str, text: str, errors: MessageErrors, *, uuid: UUID) -> dict[str, str]:
    """Return the Machine columns that an SSH key sets. ``place`` is the field of the message."""
    key = errors.check(place, ssh_key.ssh_public_key, text)
    if key is None:
        return {}
    owner = Machine.objects.filter(ssh_key_fingerprint=key.fingerprint).values_list("uuid", flat=True).first()
    if owner not in (None, uuid):
        errors.add(
            place, "belongs to another machine; remove ssh_key and ssh_key.pub from var_dir, so that a new key is made"
        )
    return {"ssh_public_key": key.line, "ssh_key_fingerprint": key.fingerprint}


def _fault_fields(message: StorageConfiguration, *, now: datetime) -> dict[str, Any]:
    """Return the columns of the storage's faults. A wrong clock is one, which we find ourselves."""
    kinds = itertools.chain(message.fault_kinds, itertools.repeat(FAULT_OTHER))
    faults = list(zip(message.faults, kinds, strict=False))
    if message.time_now is not None and (clock_fault := _clock_fault(message.time_now, now=now)):
        faults.append((clock_fault, FAULT_CLOCK))
    present = {kind for _text, kind in faults}
    return {
        "faults": [one_line(text)[:FAULT_LENGTH] for text, _kind in faults],
        "fault_kind": next((kind for kind in FAULT_KINDS if kind in present), FAULT_OTHER),
    }


def _clock_fault(time_now: float, *, now: datetime) -> str:
    """Return a sentence about a clock that differs from ours, or an empty text. Its distance changes all the time."""
    difference = time_now - now.timestamp()
    if abs(difference) <= clock_agreement.TOLERANCE.total_seconds():
        return ""
    direction = "ahead of" if difference > 0 else "behind"
    return f"its clock is more than {rough_duration(clock_agreement.TOLERANCE)} {direction} the coordinator's"


def storage_fields(message: StorageConfiguration, errors: MessageErrors, *, now: datetime) -> dict[str, Any]:
    """Return the Storage columns that the message sets."""
    fields: dict[str, Any] = {
        "ssh_ping_host": errors.check("storage.ssh_ping_host", names.host_name, message.ssh_ping_host),
        "ssh_ping_port": errors.check("storage.ssh_ping_port", names.port, message.ssh_ping_port),
        "ssh_ping_user": errors.check("storage.ssh_ping_user", names.user_name, message.ssh_ping_user),
        "space_total": message.space_total,
        "space_available": message.space_available,
        **_fault_fields(message, now=now),
        "pinned_keys": " ".join(message.accepted_keys),
    }
    if len(message.ssh_ping_host_keys) > HOST_KEYS_LIMIT:
        errors.add("storage.ssh_ping_host_keys", f"has more than {HOST_KEYS_LIMIT} keys")
    else:
        keys = [
            errors.check(f"storage.ssh_ping_host_keys[{index}]", ssh_key.ssh_host_key, text)
            for index, text in enumerate(message.ssh_ping_host_keys)
        ]
        fields["ssh_ping_host_keys"] = [key.line for key in keys if key is not None]
    if message.comment is not None:
        fields["comment"] = errors.check("storage.comment", label_rule("comment"), message.comment)
    if message.published is not None:
        fields["published"] = message.published
    if message.versions:
        fields |= {
            **versions.columns(message.versions),
            "rsync_order": versions.order(message.versions.get("rsync", "")),
        }
    return fields


def register_machine(uuid: UUID, secret: str, fields: dict[str, Any], *, auth: Auth, now: datetime) -> Machine:
    """Create a machine and assign it to an eligible storage, if there is one. Raises ApiForbidden."""
    _count_use(auth, now=now)
    secret_hash = keyring.current().hash(Purpose.MACHINE, secret)
    machine = Machine(uuid=uuid, secret_hash=secret_hash, auth=auth, date_registered=now, date_checked_in=now, **fields)
    machine.storage = assignment.storage_for(machine)
    machine.save(force_insert=True)
    _log_registration(machine, {**fields, "registered with": auth, "storage": machine.storage}, now=now)
    return machine


def register_storage(name: str, secret: str, fields: dict[str, Any], *, auth: Auth, now: datetime) -> Storage:
    """Create a storage. Raises ApiForbidden."""
    _count_use(auth, now=now)
    storage = Storage(
        name=name,
        secret_hash=keyring.current().hash(Purpose.STORAGE, secret),
        auth=auth,
        date_registered=now,
        date_checked_in=now,
        **fields,
    )
    storage.save(force_insert=True)
    _log_registration(storage, {**fields, "registered with": auth}, now=now)
    return storage


def _count_use(auth: Auth, *, now: datetime) -> None:
    if not auths.count_use(auth, now=now):
        raise invalid_credentials()


def _log_registration(row: Machine | Storage, new: dict[str, Any], *, now: datetime) -> None:
    _log.info("%s %s is registered with %s", row._meta.verbose_name, log.subject_key(row), row.auth)
    log.record(log.actor_of(row), [log.NewEntry(f"{row._meta.model_name}.registered", row, new=new)], now=now)


def set_fields(row: Machine | Storage, fields: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Save the fields that differ from those of the row. Return the old and new value of each by name."""
    changed = {name: (getattr(row, name), value) for name, value in fields.items() if getattr(row, name) != value}
    for name, (_old, new) in changed.items():
        setattr(row, name, new)
    if changed:
        row.save(update_fields=list(changed))
    return changed


_UNLOGGED = {
    "versions",
    "program_order",
    "rsync_order",
    "date_checked_in",
    "fault_kind",
    "space_total",
    "space_available",
    "ssh_key_fingerprint",
    "pinned_keys",
}


def update(row: Machine | Storage, fields: dict[str, Any], *, now: datetime) -> None:
    """Take over what the machine or storage says of itself now, changes going to the audit log.

    Raises ApiThrottled for too many changes.
    """
    changed = set_fields(row, fields)
    remarkable = {name: values for name, values in changed.items() if name not in _UNLOGGED}
    if not remarkable:
        return
    weakens = remarkable.get("published") == (True, False)
    entry = log.change_entry(f"{row._meta.model_name}.changed", row, remarkable, weakens=weakens)
    log.record_of_program(log.actor_of(row), [entry], now=now)
    _log.info("%s %s changed %s", row._meta.verbose_name, row, ", ".join(remarkable))
