"""Implementation of ``turku-storage-update-config``: report this storage, and admit the machines assigned to it."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import msgspec

from turku.core import durable, lock
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.log import one_line
from turku.errors import ApiForbidden, ApiRemoved, InvalidValue, LockHeld
from turku.policy import names
from turku.protocol.api_config import ApiConfig
from turku.protocol.messages import (
    STORAGE_FAULTS_LIMIT,
    AssignedMachine,
    StorageConfiguration,
    StorageCredentials,
    StorageUpdateConfigAnswer,
    StorageUpdateConfigRequest,
)
from turku.storage.config.model import StorageConfig, StorageState
from turku.storage.disk import former_machines, machine_links, volume_marks, volumes
from turku.storage.registration import admitted_keys, authorized_keys, faults, known_machines, secret_rotation, software
from turku.storage.registration.coordinator import Coordinator
from turku.storage.registration.key_removal import Removal

REFRESH_PAUSE_SECONDS: Final = 15.0
_REFRESH_PAUSE_SHARE: Final = 10
"""Refreshing takes at most a tenth of the time, however many machines there are and however slow it is."""
_RUN_UNDER_WAY_SECONDS: Final = 10.0
_LOCK: Final = "update-config"
_FAULT_LENGTH: Final = 500
_ASKED_FILE: Final = "machines_asked.json"
_LOG = logging.getLogger(__name__)


class _LastRun(msgspec.Struct, frozen=True):
    """The time of the last call for the machines (Unix seconds), and its duration in seconds."""

    begin: float
    seconds: float
    answered: float | None = None
    """The end of the last call that went well (Unix seconds)."""


def update_config(
    configuration: StorageConfig, *, clock: Clock = SYSTEM_CLOCK, confirms_removals: bool = False
) -> None:
    """Register this storage or report its space and address, then update authorized_keys and the links.

    With ``confirms_removals``, machines that the answer lacks lose their keys at once, however many there are. A
    machine with invalid data is skipped with a warning. Raises LockHeld, ConfigurationError, ApiRefused,
    ApiUnreachable, DurableWriteFailed, and at the end NoVolume if a volume is missing.
    """
    configuration = secret_rotation.resume(configuration)
    with lock.exclusive(configuration.state.lock_dir, _LOCK):
        _update(configuration, clock, Removal(configuration, clock=clock, is_confirmed=confirms_removals))
    # By now the coordinator knows, and machines of other volumes are admitted.
    volume_marks.require_all(configuration)


def refresh(configuration: StorageConfig, *, clock: Clock = SYSTEM_CLOCK) -> None:
    """Do what ``update_config`` does, unless that was done a moment ago. Wait for another run that is doing it.

    A login that causes this therefore costs the coordinator and this host a bounded part of their time. Raises what
    ``update_config`` raises except LockHeld.
    """
    deadline = clock.monotonic_seconds() + _RUN_UNDER_WAY_SECONDS
    while True:
        try:
            with lock.exclusive(configuration.state.lock_dir, _LOCK):
                if _is_due(configuration.state, clock):
                    _update(configuration, clock, Removal(configuration, clock=clock))
                return
        except LockHeld:
            if clock.monotonic_seconds() >= deadline:
                return
            clock.sleep(0.1)


def _is_due(configuration: StorageState, clock: Clock) -> bool:
    asked = _last_run(configuration)
    if asked is None:
        return True
    elapsed = clock.now().timestamp() - asked.begin
    # Negative after the clock was set back.
    return not 0 <= elapsed < max(REFRESH_PAUSE_SECONDS, _REFRESH_PAUSE_SHARE * asked.seconds)


def _last_run(configuration: StorageState) -> _LastRun | None:
    try:
        return msgspec.json.decode((configuration.var_dir / _ASKED_FILE).read_bytes(), type=_LastRun)
    except (OSError, msgspec.MsgspecError, UnicodeError):
        return None


def last_answer(configuration: StorageState) -> datetime | None:
    """Return the time at which the coordinator last accepted a report of this storage, or None for never."""
    last = _last_run(configuration)
    try:
        return None if last is None or last.answered is None else datetime.fromtimestamp(last.answered, UTC)
    except (ValueError, OverflowError, OSError):
        return None


@contextmanager
def _recorded(configuration: StorageConfig, clock: Clock) -> Iterator[None]:
    # Recorded before the call as well. If nothing can be recorded, as on a full disk, nothing is called either.
    path, begin = configuration.state.var_dir / _ASKED_FILE, clock.now().timestamp()
    last = _last_run(configuration.state)
    answered = None if last is None else last.answered
    durable.write_json(path, msgspec.to_builtins(_LastRun(begin, 0.0, answered)))
    try:
        yield
        answered = clock.now().timestamp()
    finally:
        durable.write_json(path, msgspec.to_builtins(_LastRun(begin, clock.now().timestamp() - begin, answered)))


def _update(configuration: StorageConfig, clock: Clock, removal: Removal) -> None:
    durable.make_private_directory(configuration.state.machines_dir)
    with _recorded(configuration, clock):
        answer = _register(configuration)
        machines = _valid(answer.machines)
        former_machines.record(configuration.state, answer.former_histories, machines)
        written = authorized_keys.write(configuration, machines, removal)
        admitted_keys.write(configuration, written.admitted)
        machine_links.update_links(configuration, machines)
        known_machines.remember(configuration, machines)
    _LOG.info(
        "%d machine%s admitted, %d left out; %s %s",
        len(written.admitted),
        "" if len(written.admitted) == 1 else "s",
        len(set(machines) - {each.uuid for each in written.admitted}),
        configuration.ssh.authorized_keys_file,
        "written" if written.changed else "unchanged",
    )


def _register(configuration: StorageConfig) -> StorageUpdateConfigAnswer:
    total_mib, available_mib = volumes.space(configuration)
    present = faults.found(configuration)[:STORAGE_FAULTS_LIMIT]
    host_keys = configuration.ssh.host_keys()
    ended = former_machines.ended(configuration)
    versions = software.versions(configuration)

    def request(credentials: StorageCredentials) -> StorageUpdateConfigRequest:
        return StorageUpdateConfigRequest(
            storage=StorageConfiguration(
                name=credentials.name,
                secret=credentials.secret,
                ssh_ping_host=configuration.ssh.ssh_ping_host,
                ssh_ping_host_keys=host_keys,
                ssh_ping_port=configuration.ssh.ssh_ping_port,
                ssh_ping_user=configuration.ssh.ssh_ping_user,
                space_total=total_mib,
                space_available=available_mib,
                published=configuration.identity.published,
                comment=configuration.identity.comment,
                slots=configuration.sessions.slots,
                versions=versions,
                ended_histories=ended,
                faults=[one_line(fault.text)[:_FAULT_LENGTH] for fault in present],
                fault_kinds=[fault.kind for fault in present],
                time_now=SYSTEM_CLOCK.now().timestamp(),
                accepted_keys=list(configuration.api.accepted_keys(configuration.state.var_dir)),
            ),
            auth=configuration.api.registration,
        )

    coordinator = Coordinator(configuration)
    try:
        answer = coordinator.call("storage_update_config", request, StorageUpdateConfigAnswer)
        if coordinator.learn_keys(answer.announced_keys):
            # A key is not changed before the coordinator knows that its storages accept the next one.
            coordinator = Coordinator(configuration)
            answer = coordinator.call("storage_update_config", request, StorageUpdateConfigAnswer)
    except ApiRemoved:
        # No Auth helps.
        raise
    except ApiForbidden as error:
        raise ApiForbidden(
            f"{error.message}: the coordinator does not know storage {configuration.identity.name!r} with its secret",
            details=error.details,
            hint=_registration_hint(configuration.api),
        ) from error
    if warning := coordinator.clock_warning(SYSTEM_CLOCK):
        _LOG.warning("%s", warning)
    _LOG.info("storage %s: %.0f of %.0f MiB available", configuration.identity.name, available_mib, total_mib)
    return answer


def _registration_hint(configuration: ApiConfig) -> str:
    if configuration.registration is None:
        return (
            "to register, run turku-storage setup JOIN. On the coordinator, 'turku-api join-token create storage' "
            "prints JOIN"
        )
    return (
        "to register, the join token or Auth must still be valid ('turku-api join-token list' on the coordinator shows "
        "them), and no other storage may have this name"
    )


def _valid(machines: Mapping[str, AssignedMachine]) -> dict[str, AssignedMachine]:
    lawful: dict[str, AssignedMachine] = {}
    for uuid, machine in machines.items():
        try:
            lawful.setdefault(names.machine_uuid(uuid), machine)
        except InvalidValue as error:
            _LOG.warning("a machine is left out: %s", error.message)
    return lawful
