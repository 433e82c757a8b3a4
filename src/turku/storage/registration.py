"""What ``turku-storage-update-config`` does: tell the coordinator of this storage, admit the machines it is given."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from turku.core import durable, lock
from turku.errors import ApiRefused, PolicyError
from turku.policy import names
from turku.protocol.messages import (
    AssignedMachine,
    StorageConfiguration,
    StorageUpdateConfigAnswer,
    StorageUpdateConfigRequest,
)
from turku.storage import authorized_keys, machine_links, volumes
from turku.storage.configuration import Storage

_LOG = logging.getLogger(__name__)


def update_config(configuration: Storage) -> None:
    """Register this storage or report its space and address, then bring authorized_keys and the links up to date.

    Raises LockHeld, NoVolume, ConfigurationError, ApiRefused, ApiUnreachable, DurableWriteFailed; a single machine
    whose data is no good is left out with a warning.
    """
    with lock.exclusive(configuration.lock_dir, "update-config"):
        machines = _lawful(_ask(configuration))
        durable.make_private_directory(configuration.machines_dir)
        written = authorized_keys.write(configuration, machines)
        machine_links.update_links(configuration, machines)
    _LOG.info(
        "%d machines admitted, %d left out; %s %s",
        len(written.admitted),
        len(machines) - len(written.admitted),
        configuration.authorized_keys_file,
        "written" if written.changed else "unchanged",
    )


def _ask(configuration: Storage) -> Mapping[str, AssignedMachine]:
    total_mib, available_mib = volumes.space(configuration)
    request = StorageUpdateConfigRequest(
        storage=StorageConfiguration(
            name=configuration.name,
            secret=configuration.secret.reveal(),
            ssh_ping_host=configuration.ssh_ping_host,
            ssh_ping_host_keys=configuration.host_keys(),
            ssh_ping_port=configuration.ssh_ping_port,
            ssh_ping_user=configuration.ssh_ping_user,
            space_total=total_mib,
            space_available=available_mib,
            published=configuration.published,
            comment=configuration.comment,
        ),
        auth=configuration.registration,
    )
    try:
        answer = configuration.api().call("storage_update_config", request, StorageUpdateConfigAnswer)
    except ApiRefused as error:
        if error.status != 403:
            raise
        raise ApiRefused(
            f"{error.message}: the coordinator does not know storage {configuration.name!r} with its secret",
            status=error.status,
            details=error.details,
            hint=_registration_hint(configuration),
        ) from error
    _LOG.info("storage %s: %.0f of %.0f MiB available", configuration.name, available_mib, total_mib)
    return answer.machines


def _registration_hint(configuration: Storage) -> str:
    if configuration.registration is None:
        return (
            "to register, set api_auth (or api_auth_name and api_auth_secret) to a registration of kind storage_reg, "
            "made on the coordinator with: turku_auth_create storage_reg"
        )
    return (
        "to register, api_auth (or api_auth_name and api_auth_secret) must be an active registration of kind "
        "storage_reg, and no other storage may have this name"
    )


def _lawful(machines: Mapping[str, AssignedMachine]) -> dict[str, AssignedMachine]:
    lawful: dict[str, AssignedMachine] = {}
    for uuid, machine in machines.items():
        try:
            lawful.setdefault(names.machine_uuid(uuid), machine)
        except PolicyError as error:
            _LOG.warning("a machine is left out: %s", error.message)
    return lawful
