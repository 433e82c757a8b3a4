"""The calls of agents: ``update_config``, ``agent_ping_checkin``, ``agent_ping_restore`` of the contract, and
``machine_rotate``, ``machine_reenrol`` beside it."""

from __future__ import annotations

from django.db import transaction
from msgspec import UNSET, Raw

from turku.api.admission import leases
from turku.api.backups import declaration, restores
from turku.api.backups.due import due_sources, restorable_sources
from turku.api.backups.quick_look import machine_with_something_due
from turku.api.fleet import assignment, credentials, re_enrolment, registration, rotation
from turku.api.fleet.faults import Faults
from turku.api.fleet.models import AuthKind
from turku.api.restores import offers
from turku.api.wire import orders
from turku.api.wire.endpoint import endpoint
from turku.core.clock import SYSTEM_CLOCK
from turku.protocol.codec import encode
from turku.protocol.messages import (
    AgentPingCheckinAnswer,
    AgentPingRequest,
    AgentPingRestoreAnswer,
    DueMachine,
    Empty,
    MachineReenrolAnswer,
    MachineReenrolRequest,
    MachineReference,
    MachineRotateRequest,
    RestorableMachine,
    UpdateConfigRequest,
)


@endpoint(UpdateConfigRequest)
def update_config(request: UpdateConfigRequest) -> Empty:
    """Register the machine, or take over what its configuration says now: all of it, or nothing."""
    now = SYSTEM_CLOCK.now()
    told = request.machine
    uuid = credentials.machine_uuid(told.uuid)
    known, is_proved = credentials.examine_machine(uuid, told.secret)
    auth = None if is_proved else registration.require_auth(AuthKind.MACHINE, request.auth, is_new=known is None)
    faults = Faults()
    if auth is not None:
        faults.check("machine.secret", registration.secret_for_registration, told.secret)
    fields = registration.machine_fields(told, faults, uuid=uuid)
    sources = None if told.sources is UNSET else declaration.check(told.sources, faults)
    faults.refuse()
    with transaction.atomic():
        if auth is not None:
            machine = registration.register_machine(uuid, told.secret, fields, auth=auth, now=now)
        else:
            machine = credentials.locked(known)
            if machine.storage_id is None:
                fields["storage"] = assignment.storage_for(machine)
            registration.update(machine, {**fields, "date_checked_in": now}, now=now)
        if sources is not None:
            declaration.apply(machine, sources, now=now)
    return Empty()


@endpoint(AgentPingRequest)
def agent_ping_checkin(request: AgentPingRequest) -> AgentPingCheckinAnswer:
    """The sources of the machine that are due now, and for which there is a slot; restores that wait for it."""
    now = SYSTEM_CLOCK.now()
    uuid = credentials.machine_uuid(request.machine.uuid)
    waiting = machine_with_something_due(uuid, request.machine.secret, now=now)
    if waiting is None:
        return AgentPingCheckinAnswer(DueMachine({}))
    sources = due_sources(waiting.machine_key, now=now) if waiting.has_due else []
    # A source brings its machine along.
    sources = leases.reserve(sources[0].machine, sources, now=now) if sources else []
    due = orders.due(sources[0].machine, sources, now=now).by_name if sources else {}
    offered = offers.offered(waiting.machine_key, now=now) if waiting.has_restores else []
    return AgentPingCheckinAnswer(DueMachine(due, Raw(encode(offered)) if offered else UNSET))


@endpoint(AgentPingRequest)
def agent_ping_restore(request: AgentPingRequest) -> AgentPingRestoreAnswer:
    """All active sources of the machine."""
    now = SYSTEM_CLOCK.now()
    machine = credentials.require_machine(request.machine.uuid, request.machine.secret, now=now)
    restores.note(machine, now=now)
    restorable = orders.restorable(machine, restorable_sources(machine), now=now)
    return AgentPingRestoreAnswer(RestorableMachine(restorable.by_name))


@endpoint(MachineRotateRequest)
def machine_rotate(request: MachineRotateRequest) -> Empty:
    """Give the machine a new secret and key."""
    told = request.machine
    uuid = credentials.machine_uuid(told.uuid)
    now = SYSTEM_CLOCK.now()
    rotation.rotate_machine(uuid, told.secret, request.new_secret, request.new_ssh_public_key, now=now)
    return Empty()


@endpoint(MachineReenrolRequest)
def machine_reenrol(request: MachineReenrolRequest) -> MachineReenrolAnswer:
    """Give a reinstalled machine its place again; the UUID that it has from now on."""
    now = SYSTEM_CLOCK.now()
    machine = re_enrolment.redeem(request.code, request.secret, request.ssh_public_key, now=now)
    return MachineReenrolAnswer(MachineReference(str(machine.uuid)))
