"""The calls of agents.

The contract has ``update_config``, ``agent_ping_checkin`` and ``agent_ping_restore``. The others are beside it.
"""

from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from django.db import transaction
from msgspec import UNSET, Raw

from turku.api.audit import log
from turku.api.backups import declaration
from turku.api.backups.models import Source
from turku.api.backups.next_backup import due_sources
from turku.api.backups.profiles import offers as profile_offers
from turku.api.backups.profiles import reports as profile_reports
from turku.api.backups.profiles.offers import Group
from turku.api.configuration.client_network import network_of
from turku.api.configuration.tls import served
from turku.api.fleet import assignment, former_history, reported_problems, same_name, versions
from turku.api.fleet.identity import authentication, clones, re_enrolment, registration, rotation, work_limit
from turku.api.fleet.identity.keyring import Purpose
from turku.api.fleet.models import Auth, Machine
from turku.api.queue import leases
from turku.api.request import client_address
from turku.api.request.message_errors import MessageErrors
from turku.api.restores import offers, progress_report
from turku.api.rpc import source_messages
from turku.api.rpc.checkin_query import PendingWork, pending_work
from turku.api.rpc.endpoint import endpoint
from turku.core.clock import SYSTEM_CLOCK
from turku.protocol.codec import encode
from turku.protocol.messages import (
    AgentPingCheckinAnswer,
    AgentPingRequest,
    AgentPingRestoreAnswer,
    AgentProfilesAnswer,
    DueMachine,
    Empty,
    FormerStorage,
    HostReport,
    MachineReenrolAnswer,
    MachineReenrolRequest,
    MachineReference,
    MachineRotateRequest,
    ProposedProfile,
    RestorableMachine,
    UpdateConfigAnswer,
    UpdateConfigRequest,
)
from turku.protocol.restore_request_messages import (
    AgentRestoreProgressAnswer,
    AgentRestoreProgressRequest,
    AgentRestoresAnswer,
)

_NAMED_WITHDRAWN = 100
"""Withdrawn sources that an answer names."""
_FORMER_STORAGES = 20
"""Former storages that an answer names."""
_RESTORE_NOTE_RESOLUTION = timedelta(minutes=10)


@endpoint(UpdateConfigRequest)
def update_config(request: UpdateConfigRequest) -> UpdateConfigAnswer:
    """Register the machine, or take over what its configuration says now: all of it, or nothing.

    A machine that can be told which sources are refused gets the others taken over.
    """
    now = SYSTEM_CLOCK.now()
    uuid = authentication.machine_uuid(request.machine.uuid)
    known, is_proved = authentication.authenticate_machine(uuid, request.machine.secret)
    auth = None
    if not is_proved:
        auth = registration.require_auth(request.auth, known, Purpose.MACHINE, request.machine.secret, now=now)
    # The caller is authenticated, and no work was done yet.
    units = 0 if request.machine.sources is UNSET else declaration.units_of(request.machine.sources)
    if auth is None:
        with work_limit.CONFIGURATIONS.reserve(str(uuid), units):
            answer = _apply_configuration(request, uuid, known, None, now=now)
    else:
        with work_limit.REGISTRATIONS.reserve(f"{auth.pk} {network_of(client_address.current_address())}", units):
            answer = _apply_configuration(request, uuid, None, auth, now=now)
    if not request.machine.accepted_keys:
        return answer
    return msgspec.structs.replace(answer, announced_keys=served.announced_keys())


def _apply_configuration(
    request: UpdateConfigRequest, uuid: UUID, known: Machine | None, auth: Auth | None, *, now: datetime
) -> UpdateConfigAnswer:
    """Apply the configuration of the message, and return the machine's withdrawn and refused sources."""
    message = request.machine
    errors = MessageErrors()
    if auth is not None:
        errors.check("machine.secret", registration.secret_for_registration, message.secret)
    fields = registration.machine_fields(message, errors, uuid=uuid)
    plan = None
    refused = dict(message.unusable_sources)
    if message.sources is not UNSET:
        sources = {} if known is None else declaration.known_sources(known)
        if request.takes_part:
            declared, unfit = declaration.check_each(message.sources, sources, errors)
            refused |= unfit
        else:
            declared = declaration.check(message.sources, sources, errors)
        errors.raise_if_any()
        plan = declaration.DeclarationChanges(sources, declared, refused=refused, now=now)
        if known is not None and plan.has_changes:
            log.require_room(log.actor_of(known), now=now)
    errors.raise_if_any()
    with transaction.atomic():
        if auth is not None:
            machine = registration.register_machine(uuid, message.secret, fields, auth=auth, now=now)
        else:
            machine = authentication.lock_active(known)
            if machine.storage_id is None:
                fields["storage"] = assignment.storage_for(machine)
            registration.update(machine, {**fields, "date_checked_in": now}, now=now)
        profile_reports.store(machine, message.profiles, now=now)
        warnings = _warnings(machine, request.host, now=now)
        if plan is None:
            return UpdateConfigAnswer(warnings=warnings)
        shown = reported_problems.refused(refused)
        reported_problems.record_refused(machine, shown, now=now)
        return UpdateConfigAnswer(
            declaration.apply(machine, plan, now=now)[:_NAMED_WITHDRAWN], shown, warnings=warnings
        )


def _warnings(machine: Machine, host: HostReport, *, now: datetime) -> list[str]:
    """Record the machine's host, and return the warnings for the machine's log."""
    if host.versions:
        registration.set_fields(machine, versions.columns(host.versions))
    is_copy = bool(host.system) and clones.note(machine.pk, host.system, now=now)
    return [*([clones.WARNING] if is_copy else []), *same_name.warnings(machine)]


@endpoint(AgentPingRequest)
def agent_ping_checkin(request: AgentPingRequest) -> AgentPingCheckinAnswer:
    """Return the due sources of the machine that have a slot, and the restores that wait for it."""
    now = SYSTEM_CLOCK.now()
    uuid = authentication.machine_uuid(request.machine.uuid)
    waiting = pending_work(uuid, request.machine.secret, request.profiles, now=now)
    if request.session_failures is not UNSET:
        reported_problems.record_sessions(uuid, request.session_failures, now=now)
    warnings = _note_host(waiting, request.host, now=now)
    if waiting.is_empty:
        return AgentPingCheckinAnswer(DueMachine({}, warnings=warnings))
    sources = due_sources(waiting.machine_key, now=now) if waiting.has_due else []
    # The sources were read with their machine.
    sources = leases.reserve(sources[0].machine, sources, now=now) if sources else []
    due = source_messages.due(sources[0].machine, sources, now=now).by_name if sources else {}
    offered = offers.offered_restores(waiting.machine_key, now=now) if waiting.has_restores else []
    profiles = UNSET if waiting.profiles is None else Raw(encode(waiting.profiles))
    return AgentPingCheckinAnswer(DueMachine(due, Raw(encode(offered)) if offered else UNSET, profiles, warnings))


def _note_host(waiting: PendingWork, host: HostReport, *, now: datetime) -> list[str]:
    """Record what changed on the machine's host, and return the warnings for the machine."""
    if host.versions:
        Machine.objects.filter(pk=waiting.machine_key).update(**versions.columns(host.versions))
    if not host.system or clones.is_same(host.system, waiting.running_system):
        return []
    return [clones.WARNING] if clones.note(waiting.machine_key, host.system, now=now) else []


def _restorable_sources(machine: Machine) -> list[Source]:
    """Return the active sources of the machine, including those no longer declared, whose history can be restored."""
    if machine.storage is None or not machine.storage.active:
        return []
    return list(machine.sources.filter(active=True).order_by("name"))


@endpoint(AgentPingRequest)
def agent_ping_restore(request: AgentPingRequest) -> AgentPingRestoreAnswer:
    """Return all active sources of the machine."""
    now = SYSTEM_CLOCK.now()
    machine = authentication.require_machine(request.machine.uuid, request.machine.secret, now=now)
    actor = log.actor_of(machine)
    if not log.was_recorded(actor, "restore.asked", machine, within=_RESTORE_NOTE_RESOLUTION, now=now):
        log.record(actor, [log.NewEntry("restore.asked", machine)], now=now)
    restorable = source_messages.restorable(machine, _restorable_sources(machine), now=now)
    return AgentPingRestoreAnswer(RestorableMachine(restorable.by_name, _former_storages(machine)))


def _former_storages(machine: Machine) -> list[FormerStorage]:
    rows = former_history.of_machine(machine.uuid).filter(is_moved=True, storage__active=True)
    return [
        FormerStorage(
            offers.storage_address(row.storage), row.date_keep_until.isoformat() if row.date_keep_until else None
        )
        for row in rows[:_FORMER_STORAGES]
    ]


@endpoint(MachineRotateRequest)
def machine_rotate(request: MachineRotateRequest) -> Empty:
    """Give the machine a new secret and key."""
    message = request.machine
    uuid = authentication.machine_uuid(message.uuid)
    now = SYSTEM_CLOCK.now()
    rotation.rotate_machine(uuid, message.secret, request.new_secret, request.new_ssh_public_key, now=now)
    return Empty()


@endpoint(MachineReenrolRequest)
def machine_reenrol(request: MachineReenrolRequest) -> MachineReenrolAnswer:
    """Redeem a re-enrolment code, and return the UUID of the reinstalled machine."""
    now = SYSTEM_CLOCK.now()
    machine = re_enrolment.redeem(request.code, request.secret, request.ssh_public_key, now=now)
    return MachineReenrolAnswer(MachineReference(str(machine.uuid)))


@endpoint(AgentPingRequest)
def agent_restores(request: AgentPingRequest) -> AgentRestoresAnswer:
    """Return the restores that wait for a machine that has no time for a checkin."""
    now = SYSTEM_CLOCK.now()
    machine = authentication.require_machine(request.machine.uuid, request.machine.secret, now=now)
    return AgentRestoresAnswer(Raw(encode(offers.offered_restores(machine.pk, now=now))))


@endpoint(AgentPingRequest)
def agent_profiles(request: AgentPingRequest) -> AgentProfilesAnswer:
    """Return the profiles that the machine is offered."""
    now = SYSTEM_CLOCK.now()
    machine = authentication.require_machine(request.machine.uuid, request.machine.secret, now=now)
    offered = profile_offers.offered(Group(machine.auth_id, machine.environment_name, machine.service_name))
    sent = [
        ProposedProfile(each.name, {name: dict(options) for name, options in each.sources.items()}) for each in offered
    ]
    return AgentProfilesAnswer(profile_offers.digest_of(offered), sent)


@endpoint(AgentRestoreProgressRequest)
def agent_restore_progress(request: AgentRestoreProgressRequest) -> AgentRestoreProgressAnswer:
    """Record the progress of a restore, and tell the machine whether to go on."""
    now = SYSTEM_CLOCK.now()
    machine = authentication.require_machine(request.machine.uuid, request.machine.secret, now=now)
    return progress_report.record(machine, request, now=now)
