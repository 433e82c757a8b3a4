"""The readable links to machines: ``machines/[<environment>-][<service>-]<unit>`` to ``<uuid>`` (contract, 5)."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from turku.core import durable
from turku.errors import InvalidValue
from turku.policy import names
from turku.protocol.messages import AssignedMachine, ScheduledMachine
from turku.storage.config.model import StorageConfig, StorageState
from turku.storage.disk import former_machines, volumes
from turku.storage.fs import tree as fs

_NAMES_FILE = "machine_names.json"
_NAMES_LIMIT_BYTES = 64 * 1024 * 1024
_LOG = logging.getLogger(__name__)


def link_name(machine: AssignedMachine | ScheduledMachine) -> str | None:
    """Return the readable name of the machine, or None if it has none that can be a link."""
    try:
        name = names.machine_link_name(
            environment_name=machine.environment_name, service_name=machine.service_name, unit_name=machine.unit_name
        )
    except InvalidValue:
        return None
    # A unit named like another machine's UUID would take that machine's place.
    return None if name is None or names.is_machine_uuid(name.lower()) else name


def update_name_link(configuration: StorageState, uuid: str, machine: AssignedMachine | ScheduledMachine) -> None:
    """Point the machine's readable name to it, unless another machine with a directory holds that name."""
    name = link_name(machine)
    if name is not None:
        _point(configuration.machines_dir / name, uuid)


def update_links(configuration: StorageConfig, machines: Mapping[str, AssignedMachine]) -> None:
    """Update the links of all assigned machines.

    Each machine with a directory gets a link by UUID and one by name beside it. Links that lead nowhere and links by
    former names are removed. Anything that is not a link is left alone.
    """
    present = _present_uuids(configuration)
    for uuid in machines:
        if uuid in present and not os.path.lexists(configuration.state.machines_dir / uuid):
            directory = volumes.existing_directory(configuration, uuid)
            if directory is not None:
                volumes.link_directory(configuration.state, uuid, directory)
    links = _read_name_links(configuration.state.machines_dir)
    wanted = {uuid: link_name(machine) for uuid, machine in machines.items()}
    for link in links:
        is_dangling = not os.path.lexists(configuration.state.machines_dir / link.uuid)
        is_former = link.uuid in wanted and wanted[link.uuid] != link.name
        # A machine that is no longer assigned keeps its name until another one of that name comes.
        is_inherited = link.uuid not in wanted and link.name in wanted.values()
        if is_dangling or is_former or is_inherited:
            _LOG.info("removing the link %s to %s", link.name, link.uuid)
            (configuration.state.machines_dir / link.name).unlink(missing_ok=True)
    _record_names(configuration.state, {uuid: name for uuid, name in wanted.items() if name is not None})
    for uuid, name in wanted.items():
        if name is not None and os.path.lexists(configuration.state.machines_dir / uuid):
            _point(configuration.state.machines_dir / name, uuid)


def remove_link(configuration: StorageState, uuid: str) -> None:
    """Remove the link by UUID of a machine that has no directory any more. Its link by name goes at the next update."""
    (configuration.machines_dir / names.machine_uuid(uuid)).unlink(missing_ok=True)


def known_names(configuration: StorageState) -> dict[str, set[str]]:
    """Return the names of machines by UUID, from the links and from the coordinator's last answer.

    Of two machines with the same name only one has the link.
    """
    known: dict[str, set[str]] = {}
    for link in _read_name_links(configuration.machines_dir):
        known.setdefault(link.uuid, set()).add(link.name)
    for uuid, name in _recorded_names(configuration).items():
        known.setdefault(uuid, set()).add(name)
    for uuid, former in former_machines.read(configuration).items():
        if former.name:
            known.setdefault(uuid, set()).add(former.name)
    return known


def _recorded_names(configuration: StorageState) -> dict[str, str]:
    path = configuration.var_dir / _NAMES_FILE
    try:
        content = json.loads(durable.read_regular_file(path, limit_bytes=_NAMES_LIMIT_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _LOG.warning("%s cannot be read, so machines are known by their links alone: %s", path, error)
        return {}
    if not isinstance(content, dict):
        return {}
    return {
        uuid: name for uuid, name in content.items() if names.is_machine_uuid(uuid.lower()) and isinstance(name, str)
    }


def _record_names(configuration: StorageState, known: Mapping[str, str]) -> None:
    if known != _recorded_names(configuration):
        durable.write_json(configuration.var_dir / _NAMES_FILE, dict(sorted(known.items())))


@dataclass(frozen=True)
class _NameLink:
    name: str
    uuid: str


def _present_uuids(configuration: StorageConfig) -> set[str]:
    present: set[str] = set()
    for volume in volumes.usable(configuration):
        try:
            present.update(fs.names(volume.path))
        except OSError as error:
            _LOG.warning("volume %s: %s cannot be read: %s", volume.name, volume.path, error.strerror)
    return present


def _read_name_links(directory: Path) -> list[_NameLink]:
    try:
        with os.scandir(directory) as entries:
            candidates = [
                entry.name for entry in entries if entry.is_symlink() and not names.is_machine_uuid(entry.name.lower())
            ]
    except FileNotFoundError:
        return []
    return [_NameLink(name, uuid) for name in candidates if (uuid := _linked_uuid(directory / name)) is not None]


def _linked_uuid(link: Path) -> str | None:
    """Return the UUID that a link by name leads to, or None for any other link.

    The target is relative, or absolute in the existing system.
    """
    try:
        target = link.readlink()
    except OSError:
        return None
    if str(target.parent) not in (".", str(link.parent)) or not names.is_machine_uuid(target.name.lower()):
        return None
    return target.name


def _point(link: Path, uuid: str) -> None:
    if not os.path.lexists(link):
        durable.write_symbolic_link(link, uuid)
        return
    holder = _linked_uuid(link) if link.is_symlink() else None
    if holder is None:
        _LOG.warning("%s is not a link of Turku's, so machine %s gets no readable name", link, uuid)
    elif holder != uuid and os.path.lexists(link.parent / holder):
        _LOG.warning("%s leads to machine %s; machine %s of the same name has its UUID only", link, holder, uuid)
    elif holder != uuid:
        durable.write_symbolic_link(link, uuid)
