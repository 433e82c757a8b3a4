"""The calls of storages.

The contract has ``storage_update_config``, ``storage_ping_checkin`` and ``storage_ping_source_update``. The others are
beside it.
"""

from collections.abc import Iterable
from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from turku.api.backups import recovered_machines, runs
from turku.api.backups.next_backup import due_sources
from turku.api.configuration.tls import served
from turku.api.fleet import assignment, former_history
from turku.api.fleet.identity import authentication, registration, rotation
from turku.api.fleet.identity.keyring import Purpose
from turku.api.fleet.models import FormerHistory, Machine, Storage
from turku.api.integrity import report
from turku.api.queue import capacity, leases, waiting_machines
from turku.api.request.message_errors import MessageErrors
from turku.api.restores import access_grants, offers
from turku.api.rpc import source_messages
from turku.api.rpc.endpoint import endpoint
from turku.core.clock import SYSTEM_CLOCK
from turku.protocol.integrity_messages import StorageIntegrityReportRequest
from turku.protocol.messages import (
    AssignedMachine,
    Empty,
    KeptHistory,
    ScheduledMachine,
    StorageCredentials,
    StorageHeartbeatAnswer,
    StorageHeartbeatRequest,
    StoragePingCheckinAnswer,
    StoragePingCheckinRequest,
    StoragePingSourceUpdateRequest,
    StorageRotateRequest,
    StorageUpdateConfigAnswer,
    StorageUpdateConfigRequest,
)
from turku.protocol.recovery_messages import StorageKnownMachinesAnswer, StorageKnownMachinesRequest
from turku.protocol.restore_messages import StorageAccessAnswer, StorageAccessRequest


@endpoint(StorageUpdateConfigRequest)
def storage_update_config(request: StorageUpdateConfigRequest) -> StorageUpdateConfigAnswer:
    """Register the storage or update its description, and return its machines."""
    now = SYSTEM_CLOCK.now()
    message = request.storage
    name = authentication.storage_name(message.name)
    known, is_proved = authentication.authenticate_storage(name, message.secret)
    auth = None
    if not is_proved:
        auth = registration.require_auth(request.auth, known, Purpose.STORAGE, message.secret, now=now)
    errors = MessageErrors()
    if auth is not None:
        errors.check("storage.secret", registration.secret_for_registration, message.secret)
    fields = registration.storage_fields(message, errors, now=now)
    errors.raise_if_any()
    with transaction.atomic():
        if auth is not None:
            storage = registration.register_storage(name, message.secret, fields, auth=auth, now=now)
        else:
            storage = authentication.lock_active(known)
            registration.update(storage, {**fields, "date_checked_in": now}, now=now)
        capacity.record_reported_slots(storage, message.slots, now=now)
        waiting_machines.remove_stale(storage, now=now)
        assignment.assign_unassigned(now=now)
        if message.ended_histories:
            former_history.end(storage, message.ended_histories, now=now)
    former = former_history.on_storage(storage)
    restorable = [row.machine_uuid for row in former if row.is_moved]
    moved = _admitted(Machine.objects.filter(uuid__in=restorable)) if restorable else {}
    admitted = _guests(storage, now=now) | moved | _admitted(Machine.objects.filter(storage=storage))
    announced = served.announced_keys() if message.accepted_keys else []
    return StorageUpdateConfigAnswer(admitted, announced, _kept_histories(former))


def _kept_histories(rows: Iterable[FormerHistory]) -> dict[str, KeptHistory]:
    return {
        str(row.machine_uuid): KeptHistory(
            row.machine_name, row.is_moved, row.date_keep_until.isoformat() if row.date_keep_until else None
        )
        for row in rows
    }


def _admitted(machines: QuerySet[Machine]) -> dict[str, AssignedMachine]:
    columns = ("uuid", "environment_name", "service_name", "unit_name", "comment", "ssh_public_key")
    rows = machines.filter(active=True, published=True).order_by("pk").values_list(*columns)
    return {
        str(uuid): AssignedMachine(
            ssh_public_key=key or None,
            environment_name=environment or None,
            service_name=service or None,
            unit_name=unit or None,
            comment=comment or None,
        )
        for uuid, environment, service, unit, comment, key in rows.iterator()
    }


def _guests(storage: Storage, *, now: datetime) -> dict[str, AssignedMachine]:
    """Return the keys of machines of other storages that are about to restore from this one."""
    return {
        str(machine.uuid): AssignedMachine(ssh_public_key=machine.ssh_public_key or None)
        for machine in offers.guest_machines(storage, now=now)
    }


def _storage_and_machine(sender: StorageCredentials, uuid: str, *, now: datetime) -> tuple[Storage, Machine]:
    """Return the authenticated storage, and one of its machines."""
    storage = authentication.require_storage(sender.name, sender.secret, now=now)
    return storage, authentication.require_assigned_machine(storage, uuid)


@endpoint(StoragePingCheckinRequest)
def storage_ping_checkin(request: StoragePingCheckinRequest) -> StoragePingCheckinAnswer:
    """Begin the session of a machine, and return its due sources that have a slot."""
    now = SYSTEM_CLOCK.now()
    storage, machine = _storage_and_machine(request.storage, request.machine.uuid, now=now)
    sources = leases.begin(
        machine, storage, due_sources(machine.pk, now=now), sends_heartbeats=request.sends_heartbeats, now=now
    )
    due = source_messages.due(machine, sources, now=now)
    return StoragePingCheckinAnswer(
        ScheduledMachine(
            uuid=str(machine.uuid),
            environment_name=machine.environment_name or None,
            service_name=machine.service_name or None,
            unit_name=machine.unit_name or None,
            scheduled_sources=due.by_name,
            quota_bytes=due.quota_bytes,
        )
    )


@endpoint(StoragePingSourceUpdateRequest)
def storage_ping_source_update(request: StoragePingSourceUpdateRequest) -> Empty:
    """Record backup runs of a machine's sources."""
    now = SYSTEM_CLOCK.now()
    storage, machine = _storage_and_machine(request.storage, request.machine.uuid, now=now)
    runs.record(machine, storage, request.machine.sources, now=now)
    leases.free_finished_lanes(machine, storage, now=now)
    authentication.write_checkin(machine, now=now)
    return Empty()


@endpoint(StorageRotateRequest)
def storage_rotate(request: StorageRotateRequest) -> Empty:
    """Give the storage a new secret."""
    now = SYSTEM_CLOCK.now()
    name = authentication.storage_name(request.storage.name)
    rotation.rotate_storage(name, request.storage.secret, request.new_secret, now=now)
    return Empty()


@endpoint(StorageHeartbeatRequest)
def storage_heartbeat(request: StorageHeartbeatRequest) -> StorageHeartbeatAnswer:
    """Extend or end the leases of the session."""
    now = SYSTEM_CLOCK.now()
    storage, machine = _storage_and_machine(request.storage, request.machine.uuid, now=now)
    if request.ended:
        leases.end(machine, storage, now=now)
        return StorageHeartbeatAnswer(leased=False)
    leased = leases.heartbeat(machine, storage, now=now)
    if leased:
        # The machine does not check in during its session.
        authentication.write_checkin(machine, now=now)
    return StorageHeartbeatAnswer(leased=leased)


@endpoint(StorageIntegrityReportRequest)
def storage_integrity_report(request: StorageIntegrityReportRequest) -> Empty:
    """Record damage, verification and drills of a machine of this storage."""
    now = SYSTEM_CLOCK.now()
    storage, machine = _storage_and_machine(request.storage, request.machine.uuid, now=now)
    report.record(machine, storage, request.machine.sources, now=now)
    return Empty()


@endpoint(StorageKnownMachinesRequest)
def storage_known_machines(request: StorageKnownMachinesRequest) -> StorageKnownMachinesAnswer:
    """Recover machines that the storage has history of."""
    now = SYSTEM_CLOCK.now()
    storage = authentication.require_storage(request.storage.name, request.storage.secret, now=now)
    return StorageKnownMachinesAnswer(recovered_machines.take(storage, request.machines, now=now))


@endpoint(StorageAccessRequest)
def storage_access_request(request: StorageAccessRequest) -> StorageAccessAnswer:
    """Decide whether the storage may show this history to a machine or send it there."""
    now = SYSTEM_CLOCK.now()
    storage = authentication.require_storage(request.storage.name, request.storage.secret, now=now)
    return access_grants.decide(storage, request, now=now)
