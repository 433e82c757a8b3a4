"""Authentication of machines and storages by name and secret.

Unknown names and wrong secrets cost the same time and get the same answer (threat N2).
"""

from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from django.db import connection
from django.utils import timezone

from turku.api.audit import log
from turku.api.fleet.identity import keyring
from turku.api.fleet.identity.keyring import Purpose
from turku.api.fleet.models import Machine, Storage
from turku.api.request.message_errors import checked
from turku.errors import ApiForbidden, ApiNotFound, ApiRemoved
from turku.policy import names

Caller = TypeVar("Caller", Machine, Storage)

CHECK_IN_RESOLUTION = timedelta(minutes=1)
"""``date_checked_in`` is written at most this often."""


def invalid_credentials() -> ApiForbidden:
    """Return the error for credentials that are not valid, for any reason."""
    return ApiForbidden("these credentials are not known here, or no longer valid")


def machine_uuid(text: str) -> UUID:
    """Return the UUID of a machine in a message. Raises MalformedMessage."""
    return UUID(checked("machine.uuid", names.machine_uuid, text))


def storage_name(text: str) -> str:
    """Return the name of a storage in a message. Raises MalformedMessage."""
    return checked("storage.name", names.storage_name, text)


def authenticate_machine(uuid: UUID, secret: str) -> tuple[Machine | None, bool]:
    """Return the machine of that UUID with its storage, or None, and True if it is active and the secret is right."""
    machine = Machine.every.select_related("storage").filter(uuid=uuid).first()
    return machine, _is_authentic(machine, Purpose.MACHINE, secret)


def authenticate_storage(name: str, secret: str) -> tuple[Storage | None, bool]:
    """Return the storage of that name, or None, and True if it is active and the secret is right."""
    storage = Storage.every.filter(name=name).first()
    return storage, _is_authentic(storage, Purpose.STORAGE, secret)


def _is_authentic(caller: Machine | Storage | None, purpose: Purpose, secret: str) -> bool:
    ring = keyring.current()
    matches = ring.verify(purpose, secret, caller.secret_hash if caller else None)
    if caller is None or not matches or not caller.active:
        return False
    if ring.is_outdated(caller.secret_hash):
        type(caller)._default_manager.filter(pk=caller.pk).update(secret_hash=ring.hash(purpose, secret))
    return True


def require_machine_secret(machine: Machine | None, secret: str, *, is_removed: bool = False) -> None:
    """Raise ApiForbidden unless the machine is active and the secret is its own. None takes the same time.

    ``machine`` may have no more than its key, its hash and its switch.
    """
    if _is_authentic(machine, Purpose.MACHINE, secret):
        return
    if machine is not None and is_removed and keyring.current().verify(Purpose.MACHINE, secret, machine.secret_hash):
        raise removed(Machine.every.get(pk=machine.pk))
    raise invalid_credentials()


def refusal(caller: Machine | Storage | None, purpose: Purpose, secret: str) -> ApiForbidden:
    """Return the error for a caller that is not authenticated: ApiRemoved if it was removed and the secret is right."""
    if caller is None or caller.date_removed is None:
        return invalid_credentials()
    if not keyring.current().verify(purpose, secret, caller.secret_hash):
        return invalid_credentials()
    return removed(caller)


def removed(caller: Machine | Storage) -> ApiRemoved:
    """Return the error for a machine or storage that an operator removed."""
    noun = caller._meta.verbose_name
    return ApiRemoved(
        f"this {noun} was removed by an operator on {timezone.localtime(caller.date_removed):%Y-%m-%d}; to take it "
        f"back, run on the coordinator: turku-api {noun} readmit {log.subject_key(caller)}"
    )


def require_machine(uuid_text: str, secret: str, *, now: datetime) -> Machine:
    """Return the authenticated machine and record its checkin. Raises MalformedMessage, ApiForbidden."""
    machine, is_proved = authenticate_machine(machine_uuid(uuid_text), secret)
    if machine is None or not is_proved:
        raise refusal(machine, Purpose.MACHINE, secret)
    record_checkin(machine, now=now)
    return machine


def require_storage(name_text: str, secret: str, *, now: datetime) -> Storage:
    """Return the authenticated storage and record its checkin. Raises MalformedMessage, ApiForbidden."""
    storage, is_proved = authenticate_storage(storage_name(name_text), secret)
    if storage is None or not is_proved:
        raise refusal(storage, Purpose.STORAGE, secret)
    record_checkin(storage, now=now)
    return storage


def require_assigned_machine(storage: Storage, uuid_text: str) -> Machine:
    """Return the active machine of that storage.

    Raises ApiNotFound. Machines of other storages do not exist for this one.
    """
    machine = Machine.objects.filter(uuid=machine_uuid(uuid_text), storage=storage, active=True).first()
    if machine is None:
        raise ApiNotFound("machine.uuid: no such machine is assigned to this storage")
    machine.storage = storage
    return machine


def lock_active(caller: Caller | None) -> Caller:
    """Lock the row until the end of the transaction and return its current state.

    Raises ApiForbidden if it was deleted or switched off since. Row locks here and elsewhere are ``no_key``: other rows
    may refer to the locked one meanwhile. Otherwise two transactions that lock rows with references to each other would
    deadlock.
    """
    found = caller and type(caller)._default_manager.select_for_update(no_key=True).filter(pk=caller.pk).first()
    if not found or not found.active:
        raise invalid_credentials()
    return found


def record_checkin(caller: Machine | Storage, *, now: datetime) -> None:
    """Write that the caller was seen, unless that was written less than a minute ago."""
    earliest, latest = recent_checkin_range(now)
    if caller.date_checked_in is None or not earliest < caller.date_checked_in < latest:
        write_checkin(caller, now=now)


def recent_checkin_range(now: datetime) -> tuple[datetime, datetime]:
    """Return the range in which a ``date_checked_in`` is recent enough to be left alone.

    The clocks of coordinators differ a little. A date from a clock that was far ahead must not stay for ever.
    """
    return now - CHECK_IN_RESOLUTION, now + CHECK_IN_RESOLUTION


def write_checkin(caller: Machine | Storage, *, now: datetime) -> None:
    """Write the checkin. It is SQL because nearly every call runs it."""
    column = caller._meta.get_field("date_checked_in")
    moment, earliest, latest = (
        column.get_db_prep_value(value, connection) for value in (now, *recent_checkin_range(now))
    )
    # Conditional, so that of many calls in the same moment one writes.
    statement = (
        f"UPDATE {caller._meta.db_table} SET date_checked_in = %s "  # noqa: S608  (the name of our own table)
        "WHERE id = %s AND (date_checked_in IS NULL OR date_checked_in <= %s OR date_checked_in >= %s)"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [moment, caller.pk, earliest, latest])
